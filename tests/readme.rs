//! README.md and docs/ say what is so: their programs are the ones that tests compile and run, the files and commands
//! that they name exist, and their sizes follow from their formulas.

use std::path::Path;
use std::{env, fs};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The program after each line `<!-- file: PATH -->`, as (path, byte range of the code).
fn programs(text: &str) -> Vec<(&str, std::ops::Range<usize>)> {
    let marker = "<!-- file: ";
    let found = text.match_indices(marker).map(|(at, _)| {
        let path = text[at + marker.len()..].split(" -->").next().expect("split gives one part at least");
        let fence = at + text[at..].find("\n```").unwrap_or_else(|| panic!("no code follows the marker of {path}"));
        let begin = fence + 1 + text[fence + 1..].find('\n').expect("a line end after the fence") + 1;
        let end = begin + text[begin..].find("```\n").unwrap_or_else(|| panic!("the code of {path} does not end"));
        (path, begin..end)
    });
    found.collect()
}

/// `GRILLY_WRITE_README=1 cargo test --test readme` brings the programs up to date.
#[test]
fn programs_are_those_of_the_examples() {
    let writing = env::var_os("GRILLY_WRITE_README").is_some_and(|value| value == "1");
    for (name, least) in [("README.md", 3), ("docs/overlapping-calls.md", 1)] {
        let mut page = read(name);
        let count = programs(&page).len();
        assert!(count >= least, "{name} shows {count} programs, expected at least {least}");
        for index in 0..count {
            let (path, range) = programs(&page)[index].clone();
            let file = read(path);
            // Another page's snippet is quoted in part; a program is quoted whole.
            let same =
                if path.ends_with(".md") { file.contains(&page[range.clone()]) } else { file == page[range.clone()] };
            if writing && !path.ends_with(".md") {
                page.replace_range(range, &file);
            } else {
                assert!(same, "{name} shows another {path}; run: GRILLY_WRITE_README=1 cargo test --test readme");
            }
        }
        if writing {
            fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), page).expect("the page is writable");
        }
    }
}

#[test]
fn commands_and_files_that_pages_name_exist() {
    let makefile = read("Makefile");
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/accuracy.md",
        "docs/memory.md",
        "docs/migrating-from-pytorch.md",
        "docs/overlapping-calls.md",
        "docs/performance.md",
    ] {
        let text = read(page);
        for (at, _) in text.match_indices("`make ") {
            let ends = |c: char| !c.is_ascii_lowercase() && c != '-';
            let target = text[at + 6..].split(ends).next().expect("one part at least");
            assert!(makefile.contains(&format!("\n{target}: ")), "{page} names `make {target}`, which Makefile lacks");
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let folder = folder.parent().expect("a page is in a folder");
        for (at, _) in text.match_indices("](") {
            let link = text[at + 2..].split([')', '#']).next().expect("one part at least");
            let local = !link.is_empty() && !link.contains("://");
            assert!(!local || folder.join(link).exists(), "{page} links to {link}, which does not exist");
        }
    }
}

#[test]
fn sizes_in_the_page_about_memory_follow_from_its_formulas() {
    // in_channels, out_channels, groups, size of the square image; 3x3, batch 1, stride 1, padding 1.
    let layers = [(64, 128, 1, 32), (256, 512, 1, 16), (256, 256, 256, 16)];
    let page = read("docs/memory.md");
    for (c, k, groups, size) in layers {
        let (weight, input, output) = (k * (c / groups) * 9 * 4, c * size * size * 4, k * size * size * 4);
        let figures = [weight, input, output, input + output].map(thousands).join(" | ");
        assert!(page.contains(&format!("| {figures} |")), "docs/memory.md lacks a line with: {figures}");
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}
