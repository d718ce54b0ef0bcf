//! What must hold for any bytes whatever, one function each: it panics where it does not.
//!
//! The fuzz targets and `tests/properties.rs` run the same functions. Each compares the bridge with an oracle that is
//! written in another way: a full parse, a regular split, the browser's side of a protocol.

mod batch;
mod envelope;
mod framing;
mod front;
mod headers;
mod json;
mod last_event_id;
mod modern;
mod readers;
mod sse;
mod sse_writer;
mod translators;

pub use batch::batch;
pub use envelope::envelope;
pub use framing::framing;
pub use front::front;
pub use headers::headers;
pub use last_event_id::last_event_id;
pub use modern::modern;
pub use sse_writer::sse_writer;
pub use translators::{downgrade, shared, upgrade};

/// Numbers that look random and are always the same for the same input: a finding must be repeatable.
struct Dice(u64);

impl Dice {
    fn new(data: &[u8]) -> Self {
        // FNV-1a
        Self(data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// A number from 0 to `most`.
    fn roll(&mut self, most: usize) -> usize {
        // Knuth's MMIX; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % (most + 1)
    }
}

/// As the bridge may change a message: each raw CR and LF is a space.
fn flat(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}

fn one_line(message: &[u8]) {
    assert!(!message.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "a message is one line");
}
