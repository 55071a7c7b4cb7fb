//! Answers that arrive too slowly to be waited for.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Bytes a second that are the least: an old telephone line brings five times as many.
const LEAST: u64 = 1024;

/// A body of which some must arrive in every span of time.
pub(crate) struct Paced<R> {
    body: R,
    span: Duration,
    began: Instant,
    bytes: u64,
}

impl<R: Read> Paced<R> {
    /// A body that ends in an error once a whole `span` brought less than 1024 bytes for each of its seconds.
    pub fn new(body: R, span: Duration) -> Self {
        Self { body, span, began: Instant::now(), bytes: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.body.read(to)?;
        self.bytes += n as u64;
        let passed = self.began.elapsed();
        if n > 0 && passed >= self.span {
            let wanted = passed.as_millis() as u64 * LEAST / 1000;
            if self.bytes < wanted {
                let (bytes, seconds) = (self.bytes, passed.as_secs_f64());
                let text = format!("{bytes} bytes in {seconds:.0} s; wanted {LEAST} a second at least");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            (self.began, self.bytes) = (Instant::now(), 0);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes at a time, with a rest before each.
    struct Drip(usize, Duration);

    impl Read for Drip {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(self.1);
            let n = self.0.min(to.len());
            to[..n].fill(7);
            Ok(n)
        }
    }

    #[test]
    fn a_drip_ends_and_a_stream_goes_on() {
        let span = Duration::from_millis(60);
        let read = |n: usize| {
            let mut body = Paced::new(Drip(n, Duration::from_millis(5)), span);
            let mut to = [0; 4096];
            (0..40).try_for_each(|_| body.read(&mut to).map(drop))
        };
        assert_eq!(read(1).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(read(1000).is_ok());
    }
}
