use super::*;
use crate::config::defaults;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PACK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/packs/anomaly-infra");

/// A folder with `rules/` and `flags.yaml`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    copy_pack(&folder.path().join("rules"), "");
    fs::write(folder.path().join("flags.yaml"), "ANOMALY_DETECTION_ENABLED: true\n").expect("written");
    folder
}

fn copy_pack(to: &Path, appended: &str) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(PACK).expect("the pack") {
        let from = entry.expect("its entry").path();
        let mut text = fs::read_to_string(&from).expect("read");
        text.push_str(appended);
        fs::write(to.join(from.file_name().expect("a name")), text).expect("written");
    }
}

fn config(folder: &Path) -> Config {
    let mut config = defaults().config;
    config.rules.path = folder.join("rules");
    config.flags.file = folder.join("flags.yaml");
    config
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_edited_file_is_taken_up_and_a_broken_one_changes_nothing() {
    let folder = folder();
    let live = Live::start(&config(folder.path())).expect("valid");
    let before = live.current();
    assert_eq!(before.switched_off_by(), None);

    fs::write(folder.path().join("flags.yaml"), "ANOMALY_DETECTION_ENABLED: {enabled: maybe}\n").expect("written");
    wait_until("the broken file is refused", || live.reload_failures() == 1);
    assert!(Arc::ptr_eq(&before, &live.current()));

    fs::write(folder.path().join("flags.yaml"), "ANOMALY_DETECTION_ENABLED: false\n").expect("written");
    wait_until("the flag is off", || live.current().switched_off_by().is_some());
    assert_eq!(live.current().rules.digest, before.rules.digest);
    assert_ne!(live.current().flags_digest, before.flags_digest);
    assert_eq!((live.reloads(), live.reload_failures()), (1, 1));
}

#[test]
fn a_file_renamed_over_the_old_one_is_taken_up() {
    let folder = folder();
    let live = Live::start(&config(folder.path())).expect("valid");
    let before = live.current().rules.digest.clone();
    let rules = folder.path().join("rules/rules.yaml");
    let text = fs::read_to_string(&rules).expect("read");
    let saved = folder.path().join("rules/rules.yaml.swp");
    fs::write(&saved, format!("{text}\n# changed\n")).expect("written");
    fs::rename(&saved, &rules).expect("renamed");
    wait_until("a new digest", || live.current().rules.digest != before);
    assert_eq!(live.reload_failures(), 0);
}

#[test]
#[cfg(unix)]
fn a_swapped_link_is_taken_up_as_a_mounted_config_map_swaps_it() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().expect("a folder");
    let mount = folder.path().join("rules");
    copy_pack(&mount.join("..v1"), "");
    copy_pack(&mount.join("..v2"), "\n# second\n");
    symlink("..v1", mount.join("..data")).expect("linked");
    for entry in fs::read_dir(mount.join("..v1")).expect("the pack") {
        let name = entry.expect("its entry").file_name();
        symlink(Path::new("..data").join(&name), mount.join(&name)).expect("linked");
    }
    fs::write(folder.path().join("flags.yaml"), "{}").expect("written");
    let live = Live::start(&config(folder.path())).expect("valid");
    let before = live.current().rules.digest.clone();

    symlink("..v2", mount.join("..data_tmp")).expect("linked");
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("swapped");
    wait_until("the second version", || live.current().rules.digest != before);
    assert_eq!((live.reloads(), live.reload_failures()), (1, 0));
}

#[test]
fn looking_again_does_nothing_unless_the_meaning_changed() {
    let folder = folder();
    let live = Live::load(&config(folder.path())).expect("valid");
    assert_eq!(live.reload(), Reload::Unchanged);
    fs::write(folder.path().join("flags.yaml"), "{\"ANOMALY_DETECTION_ENABLED\": true}").expect("written");
    assert_eq!(live.reload(), Reload::Unchanged);
    fs::remove_file(folder.path().join("flags.yaml")).expect("removed");
    assert_eq!(live.reload(), Reload::Refused);
    assert_eq!(live.reload(), Reload::Unchanged, "one broken state is reported once");
    fs::write(folder.path().join("flags.yaml"), "{}").expect("written");
    assert_eq!(live.reload(), Reload::Replaced);
    assert_eq!((live.reloads(), live.reload_failures()), (1, 1));
}

#[test]
fn broken_rules_and_flags_are_told_together_at_the_start() {
    let folder = folder();
    fs::write(folder.path().join("rules/rules.yaml"), "schema: 1\nkind: rul\n").expect("written");
    fs::write(folder.path().join("flags.yaml"), "- 1\n").expect("written");
    let problems = Live::load(&config(folder.path())).expect_err("broken");
    let told = |name: &str| problems.iter().any(|p| p.file.ends_with(name));
    assert!(told("rules.yaml") && told("flags.yaml"), "{problems:?}");
}
