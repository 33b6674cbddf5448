//! Framing never panics, never invents bytes and never holds more than one message; each frame frames to itself.

use sbc_core::sip::frame::{Frame, FrameError, StreamFramer};
use sbc_core::sip::limits;

pub(crate) fn run(data: &[u8]) {
    let mut framer = StreamFramer::new();
    let mut taken = 0;
    let end = framer.push(data).and_then(|()| {
        while let Some(frame) = framer.next_frame()? {
            taken += match frame {
                Frame::Message(message) => {
                    assert!(data[taken..].starts_with(&message), "frames are the stream's bytes, in order");
                    assert_eq!(again(&message), Ok(Some(Frame::Message(message.clone()))));
                    message.len()
                }
                Frame::Ping | Frame::Pong => {
                    assert!(data[taken..].starts_with(b"\r\n"));
                    2
                }
            };
        }
        Ok(())
    });
    match end {
        Ok(()) => assert_eq!(taken + framer.buffered(), data.len(), "what was not taken waits"),
        Err(_) => assert_eq!(framer.buffered(), 0),
    }
    assert!(framer.buffered() <= limits::MESSAGE_BYTES);
}

fn again(message: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut framer = StreamFramer::new();
    framer.push(message)?;
    let frame = framer.next_frame();
    assert_eq!(framer.buffered(), 0);
    frame
}
