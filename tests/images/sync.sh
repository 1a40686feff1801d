#!/bin/sh
# Makes the sources in one folder those of another, and leaves files alone that are the same already.
#
#   tests/images/sync.sh FROM TO
#
# The images' build stage keeps its sources beside what cargo made of them, for the next build, which may
# be that of another clone. Cargo goes by dates: only files whose content is another may look changed, and
# all of them have to, also when the other clone's are older.
set -eu
from=$(realpath "$1")
to=$(realpath "$2")

cd "$to"
# Cargo's and the lock of the builder's are not sources.
find . -path ./target -prune -o -type f ! -name 'buildah-cache-lockfile' -print | while IFS= read -r file; do
    cmp -s "$file" "$from/$file" || rm "$file"
done
cd "$from"
find . -type f | while IFS= read -r file; do
    [ -e "$to/$file" ] || cp --parents "$file" "$to"
done
cp -r --attributes-only --preserve=mode . "$to"
