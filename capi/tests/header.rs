//! The checked-in header is what cbindgen makes of the code.

use std::path::Path;

#[test]
fn header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("a configuration");
    let bindings = cbindgen::Builder::new().with_crate(root).with_config(config).generate();
    let mut header = Vec::new();
    bindings.expect("code that cbindgen understands").write(&mut header);
    let header = String::from_utf8(header).expect("text");
    let path = root.join("include/softmax.h");
    if std::env::var_os("SOFTMAX_WRITE_HEADER").is_some() {
        std::fs::write(&path, &header).expect("a file that can be written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == header,
        "include/softmax.h is out of date: run SOFTMAX_WRITE_HEADER=1 cargo test -p softmax-capi --test header"
    );
}
