//! Little-endian fields of C structures, read without ever slicing out of bounds.

/// The `u16` at a byte offset.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}
/// The `u32` at a byte offset.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}
/// The `u64` at a byte offset.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}
/// The `i64` at a byte offset.
pub fn i64_at(bytes: &[u8], offset: usize) -> Option<i64> {
    Some(i64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// A cursor over packed fields: every read takes its bytes off the front, or says that they are not there.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
    pub fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    pub fn u16(&mut self) -> Option<u16> {
        u16_at(self.take(2)?, 0)
    }
    pub fn u32(&mut self) -> Option<u32> {
        u32_at(self.take(4)?, 0)
    }
    pub fn u64(&mut self) -> Option<u64> {
        u64_at(self.take(8)?, 0)
    }
    pub fn i64(&mut self) -> Option<i64> {
        i64_at(self.take(8)?, 0)
    }
    /// Bytes up to a terminating zero, without it; the zero is taken too.
    pub fn c_string(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == 0)?;
        self.take(end + 1).map(|b| &b[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_off_the_front_until_there_are_none() {
        let mut f = Fields::new(&[1, 2, 0, b'h', b'i', 0, 7]);
        assert_eq!((f.u8(), f.u16(), f.c_string()), (Some(1), Some(2), Some(&b"hi"[..])));
        assert_eq!((f.u16(), f.u8(), f.u8(), f.c_string()), (None, Some(7), None, None));
        assert_eq!((u32_at(&[1, 2, 3], 0), u32_at(&[1, 2, 3, 4], usize::MAX)), (None, None));
    }
}
