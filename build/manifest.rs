//! `manifest.sha256` lists every input and output of the shader compiler, as `sha256sum` prints it.

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Checks that every listed file has its hash, and that no shader is missing from the list.
pub fn verify(manifest: &Path) -> Result<(), String> {
    let text = fs::read_to_string(manifest).map_err(|error| stale(&format!("{}: {error}", manifest.display())))?;
    let mut listed = BTreeSet::new();
    for line in text.lines() {
        let (hash, path) = line.split_once("  ").ok_or_else(|| stale(&format!("unreadable line `{line}`")))?;
        let bytes = fs::read(path).map_err(|error| stale(&format!("{path}: {error}")))?;
        if hash_of(&bytes) != hash {
            return Err(stale(&format!("{path} has changed")));
        }
        listed.insert(path.to_string());
    }
    for folder in ["shaders", "shaders/lib"] {
        for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            let name = path.display().to_string();
            if path.extension().is_some_and(|extension| extension == "glsl") && !listed.contains(&name) {
                return Err(stale(&format!("{name} is new")));
            }
        }
    }
    Ok(())
}

fn stale(reason: &str) -> String {
    format!("shaders/spirv is not what shaders/*.glsl compiles to ({reason}); run: make shaders")
}

/// SHA-256, in hexadecimal digits.
pub fn hash_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
