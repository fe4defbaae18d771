//! Compiles what `shaders/permutations.txt` lists to `shaders/spirv/<module>.spv` and writes
//! `shaders/spirv/manifest.sha256`, which `build.rs` and `sha256sum -c` both verify.
//!
//! Run it as `make shaders`.

#[path = "../../../build/permutations.rs"]
mod permutations;

use permutations::{FAMILIES, Kernel, Permutations, Size, module_name};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Everything that decides a module's bytes, relative to the repository's root.
const COMPILER_INPUTS: [&str; 3] =
    ["tools/compile-shaders/src/main.rs", "tools/compile-shaders/Cargo.toml", "shaders/permutations.txt"];

/// The compiler recurses deeply into long shaders.
const STACK_BYTES: usize = 64 << 20;

/// One module to be compiled.
struct Job<'a> {
    kernel: &'a Kernel,
    size: Option<&'a Size>,
    addresses: bool,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Asked when it runs, not when it is built: one build in a cache serves several checkouts.
    let package = std::env::var("CARGO_MANIFEST_DIR").map_err(|_| "run this through cargo: make shaders")?;
    std::env::set_current_dir(Path::new(&package).join("../.."))?;
    let output = Path::new("shaders/spirv");
    fs::create_dir_all(output)?;
    for stale in files_below(output)? {
        fs::remove_file(stale)?;
    }

    let all = Permutations::parse(&fs::read_to_string("shaders/permutations.txt")?)?;
    let jobs: Vec<Job> = all.kernels.iter().flat_map(|kernel| jobs_of(&all, kernel)).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Box<dyn Error + Send + Sync>> {
        let compiler = shaderc::Compiler::new()?;
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let module = module_name(job.kernel, job.size, job.addresses);
            fs::write(output.join(format!("{module}.spv")), compile(&compiler, job)?)?;
            println!("{module}");
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let spawn = |_| thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let workers: Vec<_> = (0..threads).map(spawn).collect::<Result<_, _>>()?;
        workers.into_iter().try_for_each(|worker| worker.join().expect("a compiler panicked"))
    })?;
    fs::write(output.join("manifest.sha256"), manifest()?)?;
    Ok(())
}

fn jobs_of<'a>(all: &'a Permutations, kernel: &'a Kernel) -> impl Iterator<Item = Job<'a>> {
    let ways = if kernel.addresses { &[false, true][..] } else { &[false] };
    let sizes = all.sizes_of(kernel);
    sizes.into_iter().flat_map(move |size| ways.iter().map(move |&addresses| Job { kernel, size, addresses }))
}

fn compile(compiler: &shaderc::Compiler, job: &Job) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let Job { kernel, size, addresses } = *job;
    let mut options = shaderc::CompileOptions::new()?;
    options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_1 as u32);
    options.set_optimization_level(shaderc::OptimizationLevel::Performance);
    options.set_warnings_as_errors();
    options.set_include_callback(|requested, _, _, _| {
        let path = Path::new("shaders").join(requested);
        let content = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(shaderc::ResolvedInclude { resolved_name: requested.to_string(), content })
    });
    for (name, value) in size.iter().flat_map(|size| FAMILIES[size.family].defines.iter().zip(&size.values)) {
        options.add_macro_definition(name, Some(&value.to_string()));
    }
    for (name, value) in &kernel.defines {
        options.add_macro_definition(name, Some(&value.to_string()));
    }
    if addresses {
        options.add_macro_definition("BUFFER_ADDRESSES", None);
    }
    let file = format!("{}.glsl", kernel.file);
    let text = fs::read_to_string(Path::new("shaders").join(&file))?;
    let artifact = compiler.compile_into_spirv(&text, shaderc::ShaderKind::Compute, &file, "main", Some(&options))?;
    Ok(artifact.as_binary_u8().to_vec())
}

/// `sha256sum` lines over the compiler's inputs, the GLSL and the modules, sorted by path.
fn manifest() -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut files: Vec<PathBuf> = COMPILER_INPUTS.iter().map(PathBuf::from).collect();
    files.extend(files_below(Path::new("shaders"))?);
    files.sort();
    files.dedup();
    let mut lines = String::new();
    for file in files {
        let mut digest = String::new();
        for byte in Sha256::digest(fs::read(&file)?) {
            write!(digest, "{byte:02x}")?;
        }
        writeln!(lines, "{digest}  {}", file.display())?;
    }
    Ok(lines)
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error + Send + Sync>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
