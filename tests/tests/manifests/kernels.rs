//! Documents and labels name the kernels that `make kernels` boots.

use std::fmt::Write as _;
use std::fs;

use crate::rendered::deploy;

/// What tests/kernels/list.txt has, as a sentence says it.
fn matrix(list: &str) -> String {
    let kernels: Vec<(&str, &str)> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [line, _, arch, _] = words[..] else { panic!("{line}: four words") };
            (line, arch)
        })
        .collect();
    let mut text = "Linux ".to_owned();
    for (number, arch) in ["amd64", "arm64"].into_iter().enumerate() {
        let lines: Vec<_> =
            kernels.iter().filter(|kernel| kernel.1 == arch).map(|kernel| kernel.0).collect();
        let (last, others) = lines.split_last().unwrap_or_else(|| panic!("no {arch}"));
        let comma = if number > 0 { ", " } else { "" };
        let and = if others.is_empty() { "" } else { " and " };
        write!(text, "{comma}{}{and}{last} on {arch}", others.join(", ")).unwrap();
    }
    text
}

#[test]
fn they_are_those_of_the_list() {
    let repository = deploy().join("..");
    let read = |path: &str| fs::read_to_string(repository.join(path)).unwrap();
    let matrix = matrix(&read("tests/kernels/list.txt"));
    for path in ["README.md", "docs/install.md", "docs/loader.md", "Dockerfile.loader"] {
        // Lines of documents break where they are full.
        let text = read(path).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&matrix), "{path} does not say {matrix:?}");
    }
}
