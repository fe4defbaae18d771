//! Turns the committed SPIR-V into a typed table of kernels, and refuses SPIR-V that does not belong to the
//! GLSL beside it.

#[path = "build/manifest.rs"]
mod manifest;
#[path = "build/reflect.rs"]
mod reflect;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=shaders");
    manifest::verify(Path::new("shaders/spirv/manifest.sha256"))?;

    let output = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(output.join("kernel_table.rs"), kernel_table()?)?;
    link_arguments();
    Ok(())
}

/// One `Module` constant for each line of permutations.txt.
fn kernel_table() -> Result<String, Box<dyn Error>> {
    let root = env::current_dir()?;
    let mut table = String::new();
    for line in fs::read_to_string("shaders/permutations.txt")?.lines() {
        let Some(name) = line.split_whitespace().next().filter(|name| !name.starts_with('#')) else { continue };
        let path = root.join(format!("shaders/spirv/{name}.spv"));
        let module = reflect::Module::parse(&fs::read(&path)?).map_err(|error| format!("{name}.spv: {error}"))?;
        let constant = name.to_uppercase().replace(['-', '.'], "_");
        writeln!(
            table,
            "/// Reflected from `{name}.spv`.\n\
             pub static {constant}: Module = Module {{\n    name: {name:?},\n    spirv: include_bytes!({path:?}),\n    \
             bindings: &{:?},\n    push_constant_offsets: &{:?},\n    push_constant_bytes: {},\n    specialization_ids: &{:?},\n}};\n",
            module.bindings, module.push_constant_offsets, module.push_constant_bytes, module.specialization_ids,
        )?;
    }
    Ok(table)
}

/// The shared library carries a SONAME, exports only what it means to, and is never unloaded: its thread-local
/// storage and a Vulkan driver's threads must not outlive their code.
fn link_arguments() {
    let major_minor = format!("{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux" | "android" | "freebsd") => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libgrilly.so.{major_minor}");
            println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
        Ok("macos") => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libgrilly.{major_minor}.dylib");
        }
        _ => {}
    }
}
