//! Files of any bytes, read by the command: the first byte chooses the format, the others are the
//! file.
//!
//! It looks for panics, overflows, calls that take too long or more memory than a file may need,
//! and data at places where there is none.
#![no_main]

// The command is not a library: its readers are compiled here again, with their dependencies, not
// all of which are used.
#[allow(dead_code)]
#[path = "../../cli/src"]
mod readers {
    pub mod dtype;
    pub mod failure;
    pub mod input;
    pub mod memory;
    pub mod npy;
    pub mod npz;
    pub mod order;
    pub mod safetensors_file;
    pub mod stored;
    pub mod tensor;
    pub mod text;
}
use readers::*;

use libfuzzer_sys::fuzz_target;

use crate::input::{Contents, Format, Input, Item};

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let formats =
        [Format::Npy, Format::Npz, Format::Safetensors, Format::Csv, Format::Tsv, Format::Txt];
    let format = formats[usize::from(first) % formats.len()];
    let file = Contents::memory("bytes", bytes.to_vec());
    // A refusal is one line, whatever is in the file.
    let input = match Input::read(file, None, format) {
        Ok(input) => input,
        Err(failure) => {
            let line = failure.to_string();
            assert!(line.chars().count() < 1000 && !line.contains(char::is_control), "{line:?}");
            return;
        }
    };
    for item in input.items() {
        let data = match item {
            Item::Tensor(tensor) => tensor.data.clone(),
            Item::Other(other) => other.data.clone(),
        };
        let mut bytes = vec![0; data.len()];
        input.file.read(data.start, &mut bytes).expect("data within the file");
        if let Item::Tensor(tensor) = item {
            assert_eq!(bytes.len(), tensor.len() * tensor.stored.size());
            let mut values = vec![0.0f64; tensor.len()];
            tensor.stored.decode(&bytes, &mut values);
        }
    }
});
