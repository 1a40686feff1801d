//! The loader's settings name the way in which its BPF program was built. There is none here.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=SFUNNEL_BPF_BUILD=none");
}
