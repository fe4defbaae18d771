//! `shaders/permutations.txt`, read by the shader compiler and by `build.rs` alike.

/// A size of the tile engine.
pub struct Tile {
    pub name: String,
    /// In the order of [`TILE_DEFINES`].
    pub sizes: [u32; TILE_DEFINES.len()],
}

/// A GLSL file that is compiled, and how often.
pub struct Kernel {
    pub file: String,
    pub tiled: bool,
    pub addresses: bool,
    pub defines: Vec<(String, u32)>,
}

/// Names of `Tile::sizes` in GLSL.
pub const TILE_DEFINES: [&str; 6] = ["THREADS", "THREAD_M", "THREAD_N", "LANES_N", "BLOCK", "SUBGROUP"];

/// The whole file.
pub struct Permutations {
    pub tiles: Vec<Tile>,
    pub kernels: Vec<Kernel>,
}

impl Permutations {
    pub fn parse(text: &str) -> Result<Permutations, String> {
        let mut all = Permutations { tiles: Vec::new(), kernels: Vec::new() };
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["tile", name, sizes @ ..] => {
                    let sizes: Vec<u32> = sizes.iter().filter_map(|size| size.parse().ok()).collect();
                    let sizes = sizes
                        .try_into()
                        .map_err(|_| format!("permutations.txt: `{line}` needs {} sizes", TILE_DEFINES.len()))?;
                    all.tiles.push(Tile { name: (*name).to_string(), sizes });
                }
                ["kernel", file, traits @ ..] => {
                    let mut kernel =
                        Kernel { file: (*file).to_string(), tiled: false, addresses: false, defines: Vec::new() };
                    for word in traits {
                        match (*word, word.split_once('=')) {
                            ("tiled", _) => kernel.tiled = true,
                            ("addresses", _) => kernel.addresses = true,
                            (_, Some((name, value))) => {
                                let value =
                                    value.parse().map_err(|_| format!("permutations.txt: `{word}` in `{line}`"))?;
                                kernel.defines.push((name.to_string(), value));
                            }
                            _ => return Err(format!("permutations.txt: `{word}` in `{line}`")),
                        }
                    }
                    all.kernels.push(kernel);
                }
                _ => return Err(format!("permutations.txt: unknown line `{line}`")),
            }
        }
        Ok(all)
    }
}

/// A module's file name without extension.
pub fn module_name(kernel: &Kernel, tile: Option<&Tile>, addresses: bool) -> String {
    let tile = tile.map_or(String::new(), |tile| format!(".{}", tile.name));
    let addresses = if addresses { ".addresses" } else { "" };
    format!("{}{tile}{addresses}", kernel.file)
}
