//! The committed C header is what cbindgen makes of `src/ffi` today.

use std::path::Path;
use std::{env, fs};

#[test]
fn the_committed_header_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("include/grilly.h");
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is a configuration");
    let bindings = cbindgen::Builder::new().with_config(config).with_crate(root).generate().expect("src/ffi is parsed");
    let mut fresh = Vec::new();
    bindings.write(&mut fresh);
    if env::var_os("GRILLY_WRITE_HEADER").is_some_and(|value| value == "1") {
        fs::write(&path, &fresh).expect("include/grilly.h is writable");
        return;
    }
    let committed = fs::read(&path).expect("include/grilly.h is readable");
    let difference =
        committed.split(|byte| *byte == b'\n').zip(fresh.split(|byte| *byte == b'\n')).position(|(a, b)| a != b);
    assert!(
        committed == fresh,
        "include/grilly.h is stale from line {}; run: make header",
        difference.map_or("the end".into(), |line| (line + 1).to_string()),
    );
}
