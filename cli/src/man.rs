//! The checked-in manual pages are what clap_mangen makes of the command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap_mangen::Man;

/// Each page by the name of its file.
fn pages() -> BTreeMap<String, String> {
    // The pages have the options of all builds.
    let shown = |command: clap::Command| command.mut_args(|arg| arg.hide(false));
    let mut command = crate::command().disable_help_subcommand(true).mut_subcommands(shown);
    command.build();
    let commands = command.get_subcommands().cloned().chain([command.clone()]);
    let page = |command| {
        let page = Man::new(command).source(concat!("softmax ", env!("CARGO_PKG_VERSION")));
        let mut text = Vec::new();
        page.render(&mut text).expect("text");
        (page.get_filename(), String::from_utf8(text).expect("text"))
    };
    commands.map(page).collect()
}

#[test]
fn manual_pages_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man");
    let pages = pages();
    if std::env::var_os("SOFTMAX_WRITE_MAN").is_some() {
        fs::create_dir_all(&folder).expect("a folder that can be made");
        for (name, page) in &pages {
            fs::write(folder.join(name), page).expect("a file that can be written");
        }
    }
    let there = fs::read_dir(&folder).expect("docs/man").map(|file| {
        let file = file.expect("its files");
        let page = fs::read_to_string(file.path()).expect("text");
        (file.file_name().into_string().expect("a name of text"), page)
    });
    let there: BTreeMap<_, _> = there.collect();
    for name in pages.keys().chain(there.keys()) {
        assert!(
            pages.get(name) == there.get(name),
            "docs/man/{name} is out of date: run SOFTMAX_WRITE_MAN=1 cargo test -p softmax-cli \
             --bins man, and remove what is left over"
        );
    }
}
