//! The commands that README.md tells its readers to type: tests run these very lines, so that neither can drift.

/// The commands below the heading `### section`, as typed after `$ `, joined over `\` and without remarks.
pub fn commands(section: &str) -> Vec<String> {
    typed(text_of(section))
}

/// The commands in a piece of documentation, likewise.
pub fn typed(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    text.lines().filter_map(|line| line.strip_prefix("$ ")).map(command).collect()
}

/// What stands below the heading `### section`.
///
/// Panics if there is no such section, or if it is longer than the ten lines that a way in may take.
pub fn text_of(section: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let heading = format!("\n### {section}\n");
    let rest = readme.split_once(&heading).unwrap_or_else(|| panic!("README has no section {section}")).1;
    let text = rest.split("\n#").next().unwrap_or(rest).trim();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("```"));
    assert!(lines.count() <= 10, "README's section {section} is longer than ten lines");
    text
}

fn command(line: &str) -> String {
    let typed = line.split(" #").next().unwrap_or(line);
    typed.split_whitespace().collect::<Vec<_>>().join(" ")
}
