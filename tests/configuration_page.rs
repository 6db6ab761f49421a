//! `docs/configuration.md` says of every key what the table of keys says. `UPDATE=1 cargo test --test configuration_page`
//! writes the page anew.

use std::fmt::Write;

use portsentry::config::keys::{KEYS, Key, Since};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
const HEAD: &str = "# Configuration\n\n\
`/etc/portsentry/portsentry.conf` (or `-c FILE`): `KEY=\"value\"`, one a line, `#` begins a comment. The last of two \
values wins. `portsentry-rs check` shows what a file would do, or everything that is wrong with it. A commented file \
with every key is [`config/portsentry.conf`](../config/portsentry.conf).\n\n\
| key | value | default | since | meaning |\n|---|---|---|---|---|\n";

fn row(key: &Key) -> String {
    let since = match key.since {
        Since::Classic => "PortSentry 1.2",
        Since::OnlyPortSentry1 => "PortSentry 1.2 only",
        Since::Ours => "portsentry-rs",
    };
    let default = if key.default.is_empty() { "unset".to_owned() } else { format!("`{}`", key.default) };
    let escaped = |text: &str| text.replace('|', "\\|");
    format!(
        "| `{}` | {} | {default} | {since} | {} |\n",
        key.name,
        escaped(&key.kind.allowed()),
        escaped(key.help)
    )
}

#[test]
fn the_page_says_what_the_table_says() {
    let mut page = HEAD.to_owned();
    KEYS.iter().for_each(|key| page.write_str(&row(key)).unwrap());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(written == page, "docs/configuration.md is stale: UPDATE=1 cargo test --test configuration_page");
}
