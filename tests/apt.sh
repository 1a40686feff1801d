# shellcheck shell=bash
# To be sourced after go.sh: packages of other architectures and releases of Debian, without a change to
# what this machine's apt knows. There is a state for each architecture and suite, because one suite that
# a mirror lacks would fail the update of all others.

# Prints the mirror that this machine's apt takes a suite from, or would.
apt_mirror() {
    local suite=$1 mirror
    # shellcheck disable=SC2016 # apt's variables.
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main' |
        awk -v security="$([[ $suite != *-security ]] || echo yes)" \
            -v codename="$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)" '
            security && $2 ~ /-security$/ || !security && ($2 == codename || $2 ~ /^(old)*stable$/) {
                print $1
                exit
            }')
    [ -n "$mirror" ] || fail "the sources of this machine's apt name no mirror for $suite"
    printf '%s' "$mirror"
}

# `apt_for ARCH SUITE COMMAND...` runs a program of apt that knows the packages of one architecture in one
# suite alone, as of the last `apt_update`. Nothing counts as installed.
apt_for() {
    local arch=$1 suite=$2 state=$cache/apt/$1-$2
    shift 2
    APT_CONFIG=$state/apt.conf "$@" -o "APT::Architecture=$arch" -o "APT::Architectures=$arch"
}

# `apt_update ARCH SUITE` fetches the list of packages, 1 to 10 MB unless nothing has changed. Fails where
# the mirror lacks the suite.
apt_update() {
    local arch=$1 suite=$2 state=$cache/apt/$1-$2 mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(apt_mirror "$suite") || return
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/sources"
    : >"$state/status"
    cat >"$state/apt.conf" <<-END
		Dir::State "$state";
		Dir::State::status "$state/status";
		Dir::Cache "$state/cache";
		Dir::Etc::SourceList "/dev/null";
		Dir::Etc::SourceParts "$state/sources";
		APT::Sandbox::User "";
	END
    cat >"$state/sources/debian.sources" <<-END
		Types: deb
		URIs: $mirror
		Suites: $suite
		Components: main
		Targets: Packages
		$([ ! -e $keys ] || echo "Signed-By: $keys")
	END
    say "apt-get update for $suite, $arch, from $mirror"
    # Another run may be at it: apt itself would not wait for the lock of lists.
    apt_for "$arch" "$suite" flock "$state" apt-get update -qq --error-on=any
}

# `apt_download ARCH SUITE FOLDER PACKAGE...` leaves the archives of packages in a folder. A package is
# the newest of its name, or NAME=VERSION.
apt_download() {
    local arch=$1 suite=$2 folder=$3 files
    shift 3
    files=$(apt_for "$arch" "$suite" apt-get download --print-uris "$@") || return
    # 'URI' file bytes hash
    awk '{ printf "%s (%.1f MB)\n", $2, $3 / 1e6 }' <<<"$files" |
        while IFS= read -r file; do say "apt-get download $file"; done
    (cd "$folder" && apt_for "$arch" "$suite" apt-get download -qq "$@")
}
