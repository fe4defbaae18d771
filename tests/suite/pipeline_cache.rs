//! Compiled pipelines on disk: a cache that is missing, damaged, foreign or in the way changes no result and fails no
//! call.

use crate::common::call;
use crate::common::rigs::rigs;
use grilly::{CacheFolder, Context, ContextDesc, Conv2d, Conv2dConfig, DeviceChoice, DeviceKind, Log};
use ndarray::{ArrayD, IxDyn};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A folder of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("grilly-pipelines-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.0) else { return vec![] };
        entries.map(|entry| entry.expect("readable").path()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Indices of the Vulkan devices that can be used.
fn vulkan_devices() -> Vec<u32> {
    let rigs = rigs();
    let used = rigs.iter().map(|rig| rig.context.device()).filter(|device| device.kind != DeviceKind::Cpu);
    used.map(|device| device.index).collect()
}

/// Opens a context, and says what was said of the cache.
fn open(index: u32, cache: CacheFolder) -> (Context, String) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = said.clone();
    let context = Context::new(&ContextDesc {
        device: DeviceChoice::Index(index),
        pipeline_cache: cache,
        log: Some(Log::new(move |_, text| heard.lock().expect("not poisoned").push(text.to_string()))),
        ..ContextDesc::default()
    });
    let context = context.expect("it was opened before");
    let said = said.lock().expect("not poisoned");
    let of_cache = said.iter().find(|line| line.contains("compiled pipelines")).expect("it says what it found");
    (context, of_cache.clone())
}

/// A forward pass of so many groups.
fn forward(context: &Context, groups: usize) -> ArrayD<f32> {
    let mut config = Conv2dConfig::new(6, 6, [3, 3]);
    config.groups = groups as u64;
    let conv = Conv2d::new(context, config).expect("legal");
    let x = ArrayD::from_shape_fn(IxDyn(&[2, 6, 9, 8]), |at| (at[2] * 3 + at[3] * at[1]) as f32);
    let weight = ArrayD::from_shape_fn(IxDyn(&[6, 6 / groups, 3, 3]), |at| at[0] as f32 - at[3] as f32);
    let mut y = ArrayD::zeros(IxDyn(&[2, 6, 7, 6]));
    call::forward(&conv, x.view(), &weight, y.view_mut());
    y
}

/// Opens a context, computes, and returns the result and what was said of the cache.
fn compute(index: u32, cache: CacheFolder) -> (ArrayD<f32>, String) {
    let (context, said) = open(index, cache);
    (forward(&context, 1), said)
}

fn at(path: &Path) -> CacheFolder {
    CacheFolder::At(path.to_path_buf())
}

#[test]
fn the_next_context_reads_what_the_first_wrote() {
    for index in vulkan_devices() {
        let folder = Folder::new(&format!("next-{index}"));
        let (first, said) = compute(index, at(&folder.0));
        assert!(said.starts_with("no compiled pipelines"), "{said}");
        let files = folder.files();
        assert_eq!(files.len(), 1, "one file is written: {files:?}");
        let (again, said) = compute(index, at(&folder.0));
        assert!(said.contains(" bytes of compiled pipelines from "), "{said}");
        assert_eq!(first, again);
        assert_eq!(folder.files(), files);
    }
}

#[test]
fn what_two_contexts_compiled_is_kept_together() {
    // A dense layer and a depthwise one have no kernel in common.
    const GROUPS: [usize; 2] = [1, 6];
    for index in vulkan_devices() {
        let written = |name: &str, groups: &[usize]| {
            let folder = Folder::new(&format!("{name}-{index}"));
            // All are open before the first one writes, as processes may be.
            let contexts: Vec<_> = groups.iter().map(|_| open(index, at(&folder.0)).0).collect();
            for (context, groups) in contexts.iter().zip(groups) {
                forward(context, *groups);
            }
            let file = folder.files().pop().expect("one was written");
            (fs::metadata(file).expect("there").len(), open(index, at(&folder.0)).1)
        };
        let [(dense, _), (depthwise, _)] = GROUPS.map(|groups| written("alone", &[groups]));
        let (both, said) = written("together", &GROUPS);
        assert!(said.contains(" bytes of compiled pipelines from "), "{said}");
        // Some drivers, llvmpipe's among them, give a header and nothing more.
        let (most, keeps) = (dense.max(depthwise), dense != depthwise);
        assert!(if keeps { both > most } else { both >= most }, "{both} bytes, of {dense} and {depthwise}");
    }
}

#[test]
fn a_damaged_file_is_ignored_and_replaced() {
    for index in vulkan_devices() {
        let folder = Folder::new(&format!("damaged-{index}"));
        let (expected, _) = compute(index, at(&folder.0));
        let file = folder.files().pop().expect("one was written");
        let whole = fs::read(&file).expect("there");
        let mut flipped = whole.clone();
        *flipped.last_mut().expect("not empty") ^= 1;
        for damaged in [&whole[..whole.len() / 2], &[], &flipped, b"something else entirely"] {
            fs::write(&file, damaged).expect("written");
            let (result, said) = compute(index, at(&folder.0));
            assert!(said.starts_with("no compiled pipelines"), "{said}");
            assert_eq!(result, expected);
            let (_, said) = compute(index, at(&folder.0));
            assert!(said.contains(" bytes of compiled pipelines from "), "it was replaced: {said}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_written_changes_nothing() {
    for index in vulkan_devices() {
        let folder = Folder::new(&format!("blocked-{index}"));
        fs::write(&folder.0, b"a file where the folder should be").expect("written");
        let (expected, _) = compute(index, CacheFolder::Off);
        let (result, said) = compute(index, at(&folder.0));
        assert!(said.starts_with("no compiled pipelines"), "{said}");
        assert_eq!(result, expected);
        fs::remove_file(&folder.0).expect("ours");
    }
}

#[test]
fn switched_off_it_writes_nothing() {
    for index in vulkan_devices() {
        let (_, said) = compute(index, CacheFolder::Off);
        assert_eq!(said, "compiled pipelines are not kept on disk");
    }
}
