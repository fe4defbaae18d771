//! `shaders/permutations.txt`, read by the shader compiler and by `build.rs` alike.

/// A list of sizes that kernels are compiled for, one module a size.
pub struct Family {
    /// What a line of the list begins with.
    pub word: &'static str,
    /// What a kernel that is compiled for every size of it carries.
    pub kernel_trait: &'static str,
    /// Names of `Size::values` in GLSL.
    pub defines: &'static [&'static str],
}

pub const FAMILIES: [Family; 4] = [
    Family {
        word: "tile",
        kernel_trait: "tiled",
        defines: &["THREADS", "THREAD_M", "THREAD_N", "LANES_N", "BLOCK", "SUBGROUP"],
    },
    Family { word: "strip", kernel_trait: "striped", defines: &["KERNEL_R", "KERNEL_S", "STRIDE", "ROWS"] },
    Family {
        word: "window",
        kernel_trait: "windowed",
        defines: &["KERNEL_R", "KERNEL_S", "STRIDE", "ROWS", "SUMMERS"],
    },
    Family {
        word: "segment",
        kernel_trait: "segmented",
        defines: &[
            "KERNEL_R", "KERNEL_S", "STRIDE", "DILATION", "COLUMNS", "LINES", "THREADS", "TILE_K", "TILE_C",
            "THREAD_K", "THREAD_C",
        ],
    },
];

/// A size of a family.
pub struct Size {
    /// Index of its family.
    pub family: usize,
    pub name: String,
    /// In the order of its family's defines.
    pub values: Vec<u32>,
}

/// A GLSL file that is compiled, and how often.
pub struct Kernel {
    pub file: String,
    /// Index of the family for each of whose sizes it is compiled.
    pub family: Option<usize>,
    pub addresses: bool,
    pub defines: Vec<(String, u32)>,
}

/// The whole file.
pub struct Permutations {
    pub sizes: Vec<Size>,
    pub kernels: Vec<Kernel>,
}

impl Permutations {
    pub fn parse(text: &str) -> Result<Permutations, String> {
        let mut all = Permutations { sizes: Vec::new(), kernels: Vec::new() };
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["kernel", file, traits @ ..] => {
                    let mut kernel =
                        Kernel { file: (*file).to_string(), family: None, addresses: false, defines: Vec::new() };
                    for word in traits {
                        let family = FAMILIES.iter().position(|family| family.kernel_trait == *word);
                        match (*word, word.split_once('=')) {
                            _ if family.is_some() => kernel.family = family,
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
                [word, name, values @ ..] => {
                    let family = FAMILIES.iter().position(|family| family.word == *word);
                    let family = family.ok_or_else(|| format!("permutations.txt: unknown line `{line}`"))?;
                    let values: Vec<u32> = values.iter().filter_map(|value| value.parse().ok()).collect();
                    let wanted = FAMILIES[family].defines.len();
                    if values.len() != wanted {
                        return Err(format!("permutations.txt: `{line}` needs {wanted} sizes"));
                    }
                    all.sizes.push(Size { family, name: (*name).to_string(), values });
                }
                _ => return Err(format!("permutations.txt: unknown line `{line}`")),
            }
        }
        Ok(all)
    }

    /// The sizes of a family, in the order of the file.
    pub fn family(&self, family: usize) -> impl Iterator<Item = &Size> {
        self.sizes.iter().filter(move |size| size.family == family)
    }

    /// What a kernel is compiled for: the sizes of its family, or once for none.
    pub fn sizes_of(&self, kernel: &Kernel) -> Vec<Option<&Size>> {
        kernel.family.map_or(vec![None], |family| self.family(family).map(Some).collect())
    }
}

/// A module's file name without extension.
pub fn module_name(kernel: &Kernel, size: Option<&Size>, addresses: bool) -> String {
    let size = size.map_or(String::new(), |size| format!(".{}", size.name));
    let addresses = if addresses { ".addresses" } else { "" };
    format!("{}{size}{addresses}", kernel.file)
}
