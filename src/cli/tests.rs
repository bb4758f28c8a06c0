use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_of_the_guide_exists_and_the_other_way_round() {
    let guide = include_str!("../../docs/cli.md");
    for verb in Cli::command().get_subcommands() {
        assert!(guide.contains(&format!("\n## `{}`", verb.get_name())), "docs/cli.md says nothing about `{}`", verb.get_name());
    }
    for heading in guide.lines().filter_map(|line| line.strip_prefix("## `")) {
        let verb = heading.trim_end_matches('`');
        assert!(Cli::command().find_subcommand(verb).is_some(), "docs/cli.md has `{verb}`, which is no verb");
    }
}
