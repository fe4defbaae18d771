//! Turns the committed SPIR-V into a typed table of kernels, and refuses SPIR-V that does not belong to the
//! GLSL beside it.

#[path = "build/manifest.rs"]
mod manifest;
#[path = "build/permutations.rs"]
mod permutations;
#[path = "build/reflect.rs"]
mod reflect;

use permutations::{FAMILIES, Permutations, module_name};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=shaders");
    manifest::verify(Path::new("shaders/spirv/manifest.sha256"))?;

    println!("cargo:rustc-env=GRILLY_SHADERS={}", manifest::hash_of(&fs::read("shaders/spirv/manifest.sha256")?));

    let output = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(output.join("kernel_table.rs"), kernel_table()?)?;
    link_arguments();
    Ok(())
}

/// A `Kernel` constant for each kernel of permutations.txt, with its modules, and the sizes of each family.
fn kernel_table() -> Result<String, Box<dyn Error>> {
    let all = Permutations::parse(&fs::read_to_string("shaders/permutations.txt")?)?;
    let mut table = String::new();
    for (index, family) in FAMILIES.iter().enumerate() {
        let sizes: Vec<_> = all.family(index).map(|size| &size.values).collect();
        writeln!(table, "/// {} of each {}.", family.defines.join(", "), family.word)?;
        let (constant, width) = (family.word.to_uppercase(), family.defines.len());
        writeln!(table, "pub const {constant}_SIZES: [[u32; {width}]; {}] = {sizes:?};", sizes.len())?;
    }
    for kernel in &all.kernels {
        let sizes = all.sizes_of(kernel);
        let modules = |addresses: bool| -> Result<String, Box<dyn Error>> {
            let mut text = String::from("&[");
            for size in sizes.iter().filter(|_| kernel.addresses || !addresses) {
                text += &module(&module_name(kernel, *size, addresses))?;
            }
            Ok(text + "]")
        };
        let constant = kernel.file.to_uppercase().replace('-', "_");
        for (name, value) in &kernel.defines {
            writeln!(table, "/// A #define of `{}`.\npub const {constant}_{name}: u32 = {value};", kernel.file)?;
        }
        writeln!(
            table,
            "/// `shaders/{}.glsl`.\npub static {constant}: Kernel = Kernel {{ bound: {}, addressed: {} }};",
            kernel.file,
            modules(false)?,
            modules(true)?
        )?;
    }
    Ok(table)
}

fn module(name: &str) -> Result<String, Box<dyn Error>> {
    let path = env::current_dir()?.join(format!("shaders/spirv/{name}.spv"));
    let module = reflect::Module::parse(&fs::read(&path)?).map_err(|error| format!("{name}.spv: {error}"))?;
    Ok(format!(
        "Module {{ name: {name:?}, spirv: include_bytes!({path:?}), bindings: &{:?}, push_constant_offsets: &{:?}, \
         push_constant_bytes: {}, specialization_ids: &{:?}, local_size: {:?}, shared_memory: {} }}, ",
        module.bindings,
        module.push_constant_offsets,
        module.push_constant_bytes,
        module.specialization_ids,
        module.local_size,
        module.shared_memory,
    ))
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
