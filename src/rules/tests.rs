use super::*;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const PACK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/packs/anomaly-infra");

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let sources = PackSources::read(folder, Path::new("")).expect("readable");
    sources.files.iter().map(|f| Path::new(&f.name).strip_prefix(folder).expect("below it").display().to_string()).collect()
}

#[test]
fn files_are_read_in_the_order_of_their_paths_and_hidden_ones_left_out() {
    let folder = folder(&[("b.yml", ""), ("a/z.yaml", ""), ("a.yaml", ""), ("..data/c.yaml", ""), (".d.yaml", ""), ("README.md", "")]);
    assert_eq!(names(folder.path()), ["a/z.yaml", "a.yaml", "b.yml"]);
}

#[test]
fn the_pack_that_comes_along_loads_and_settings_override_it() {
    let plain = load_pack(Path::new(PACK), Path::new("")).expect("valid");
    let overrides = folder(&[("s.yaml", "ANOMALY_BURST_THRESHOLD: 3\n"), ("empty.yaml", "# nothing\n")]);
    let changed = load_pack(Path::new(PACK), &overrides.path().join("s.yaml")).expect("valid");
    let unchanged = load_pack(Path::new(PACK), &overrides.path().join("empty.yaml")).expect("valid");
    assert!(!plain.rules.is_empty());
    assert_ne!(plain.digest, changed.digest);
    assert_eq!(plain.digest, unchanged.digest);
}

#[test]
fn what_cannot_be_read_is_told_with_its_name_and_the_way_out() {
    let check = |dir: &Path, settings: &Path, file: &Path, message: &str| {
        let problems = load_pack(dir, settings).expect_err("unreadable");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].file, file.display().to_string());
        assert!(problems[0].message.contains(message), "{problems:?}");
    };
    let none = Path::new("");
    check(Path::new("nowhere"), none, Path::new("nowhere"), "there is no such folder");
    let empty = folder(&[("README.md", "")]);
    check(empty.path(), none, empty.path(), "holds no rules");
    let missing = empty.path().join("settings.yaml");
    check(Path::new(PACK), &missing, &missing, "cannot read");
    let lists = folder(&[("s.yaml", "- 1\n")]);
    let list = lists.path().join("s.yaml");
    check(Path::new(PACK), &list, &list, "not a map of settings");
    let large = folder(&[("a.yaml", &"#".repeat(MAX_FILE_BYTES + 1))]);
    check(large.path(), none, &large.path().join("a.yaml"), "at most");
}

#[test]
#[cfg(unix)]
fn a_link_back_to_its_own_folder_ends() {
    let folder = folder(&[("a.yaml", "")]);
    std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).expect("linked");
    let problems = load_pack(folder.path(), Path::new("")).expect_err("endless");
    assert_eq!((problems.len(), problems[0].code), (1, TOO_MUCH));
}
