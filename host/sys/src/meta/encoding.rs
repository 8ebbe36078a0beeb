//! The encoding of [`Meta`] that the head of [`super`] describes.

use std::collections::BTreeMap;

use super::{Device, DeviceKind, MAX_NAME, Meta, VERSION};

impl Meta {
    /// Writes the encoding that the head of this file describes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.uid.to_le_bytes());
        out.extend(self.gid.to_le_bytes());
        match self.device {
            None => out.push(0),
            Some(device) => {
                out.push(if device.kind == DeviceKind::Char {
                    b'c'
                } else {
                    b'b'
                });
                out.extend(device.major.to_le_bytes());
                out.extend(device.minor.to_le_bytes());
            }
        }
        let kept = || {
            self.xattrs
                .iter()
                .filter(|(name, _)| (1..=MAX_NAME).contains(&name.len()))
        };
        out.extend((kept().count() as u16).to_le_bytes());
        for (name, value) in kept() {
            out.push(name.len() as u8);
            out.extend(name);
            out.extend((value.len() as u32).to_le_bytes());
            out.extend(value);
        }
        out
    }

    /// Reads an encoding; bytes from anywhere may be given.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut rest = Reader(bytes);
        if rest.u8()? != VERSION {
            return Err("unknown version");
        }
        let (uid, gid) = (rest.u32()?, rest.u32()?);
        let kind = match rest.u8()? {
            0 => None,
            b'c' => Some(DeviceKind::Char),
            b'b' => Some(DeviceKind::Block),
            _ => return Err("unknown kind of device"),
        };
        let device = match kind {
            Some(kind) => Some(Device {
                kind,
                major: rest.u32()?,
                minor: rest.u32()?,
            }),
            None => None,
        };
        let mut xattrs = BTreeMap::new();
        for _ in 0..rest.u16()? {
            let length = usize::from(rest.u8()?);
            let name = rest.take(length)?.to_vec();
            let length = rest.u32()? as usize;
            let value = rest.take(length)?.to_vec();
            if name.is_empty() || xattrs.insert(name, value).is_some() {
                return Err("an attribute without a name, or twice");
            }
        }
        if !rest.0.is_empty() {
            return Err("bytes after the end");
        }
        Ok(Self {
            uid,
            gid,
            device,
            xattrs,
        })
    }
}

/// Takes bytes off the front; every length is checked against what is there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (head, tail) = self.0.split_at_checked(length).ok_or("it ends too early")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| "it ends too early")
    }

    fn u8(&mut self) -> Result<u8, &'static str> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_le_bytes(self.array()?))
    }
}
