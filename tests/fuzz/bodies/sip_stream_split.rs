//! However a stream is cut into reads, the same frames come out, and the same error. The first byte says into pieces
//! of which sizes.

use sbc_core::sip::frame::{Frame, FrameError, StreamFramer};

pub(crate) fn run(data: &[u8]) {
    let Some((seed, stream)) = data.split_first() else { return };
    let whole = frames(std::iter::once(stream));
    assert_eq!(whole, frames(stream.chunks(usize::from(seed % 16) + 1)), "even pieces");
    let cut = stream.len() * usize::from(*seed) / 256;
    assert_eq!(whole, frames([&stream[..cut], &stream[cut..]].into_iter()), "two pieces");
}

fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let mut framer = StreamFramer::new();
    let mut frames = Vec::new();
    for piece in pieces {
        if let Err(error) = framer.push(piece) {
            return (frames, Some(error));
        }
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
