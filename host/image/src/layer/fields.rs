//! The fields of a header as somebody else wrote them: numbers, names, types.

use super::Kind;
use super::error::ReadFault;
pub use super::header::BLOCK;
use super::header::checksum;

/// Longest path or link target; Linux refuses longer ones (PATH_MAX), and deeper trees do not come in layers.
const MAX_PATH: usize = 16 << 10;

/// The fields of a header that mean the same in every format.
pub struct Header {
    pub flag: u8,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub mtime: i64,
    pub major: u64,
    pub minor: u64,
}

impl Header {
    pub fn parse(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        verify(block)?;
        let natural = |range: std::ops::Range<usize>, what| {
            (number(&block[range]).and_then(|n| u64::try_from(n).ok())).ok_or(what)
        };
        let flag = block[156];
        let device = matches!(flag, b'3' | b'4');
        let device = |range| {
            if device {
                natural(range, "a bad device number")
            } else {
                Ok(0)
            }
        };
        Ok(Self {
            flag,
            path: path(block),
            link: until_nul(&block[157..257]).to_vec(),
            mode: (natural(100..108, "a header has a bad mode")? & 0o7777) as u32,
            uid: natural(108..116, "a header has a bad owner")?,
            gid: natural(116..124, "a header has a bad group")?,
            size: natural(124..136, "a header has a bad size")?,
            mtime: number(&block[136..148]).ok_or("a header has a bad time")?,
            major: device(329..337)?,
            minor: device(337..345)?,
        })
    }
}

fn verify(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let stored = number(&block[148..156]).ok_or("a header has no checksum")?;
    // Some old tars summed signed bytes.
    let own = |range: &[u8]| range.iter().map(|b| i64::from(*b as i8)).sum::<i64>();
    let signed = own(block) - own(&block[148..156]) + 8 * i64::from(b' ');
    if stored != checksum(block) as i64 && stored != signed {
        return Err("the checksum of a header is wrong");
    }
    Ok(())
}

/// Name and, where the format has one, prefix.
fn path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    // GNU tar ("ustar  ") keeps times where the prefix would be, and star does behind its shorter prefix.
    let prefix = match (&block[257..263], &block[508..512]) {
        (b"ustar\0", b"tar\0") => until_nul(&block[345..476]),
        (b"ustar\0", _) => until_nul(&block[345..500]),
        _ => &[],
    };
    if prefix.is_empty() {
        name.to_vec()
    } else {
        [prefix, b"/", name].concat()
    }
}

/// The bytes in front of the first NUL.
pub fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or(&[])
}

/// Reads a number: octal digits among spaces and NULs, or base 256 (GNU, star) where the first bit is set.
/// An empty field is 0.
pub fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        return base256(field);
    }
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0i64, |sum, byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    // The highest bit is the mark, the next one the sign.
    let first = if negative {
        i128::from(field[0] as i8)
    } else {
        i128::from(field[0] & 0x7f)
    };
    let sum = field[1..]
        .iter()
        .fold(first, |sum, b| (sum << 8) | i128::from(*b));
    i64::try_from(sum).ok()
}

/// Whether an entry of this type and name is a regular file.  Tars older than ustar (type 0) mark directories by a slash
/// at the end of the name.  Go goes by the same rule: what is content for a scanner must not be headers here.
pub fn is_file(flag: u8, path: &[u8]) -> bool {
    match flag {
        0 => !path.ends_with(b"/"),
        b'0' | b'7' | b'S' => true,
        _ => false,
    }
}

/// Makes a kind of the type and its fields.
pub fn kind(header: &Header, is_file: bool, size: u64, link: &[u8]) -> Result<Kind, ReadFault> {
    let device =
        || Ok::<_, ReadFault>((device_number(header.major)?, device_number(header.minor)?));
    Ok(match header.flag {
        _ if is_file => Kind::File { size },
        b'1' => match normal(link)? {
            target if target.is_empty() => return Err(ReadFault::Path(link.to_vec())),
            target => Kind::Hardlink { target },
        },
        b'2' if link.is_empty() || link.contains(&0) || link.len() > MAX_PATH => {
            return Err(ReadFault::Path(link.to_vec()));
        }
        b'2' => Kind::Symlink {
            target: link.to_vec(),
        },
        b'3' => device().map(|(major, minor)| Kind::Char { major, minor })?,
        b'4' => device().map(|(major, minor)| Kind::Block { major, minor })?,
        0 | b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        other => return Err(ReadFault::Type(other)),
    })
}

fn device_number(number: u64) -> Result<u32, ReadFault> {
    u32::try_from(number).map_err(|_| ReadFault::Number(number))
}

/// An owner or a group.  The largest value of 32 bits means "nobody in particular" to chown(2), so it is refused.
pub fn id(number: u64) -> Result<u32, ReadFault> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(ReadFault::Number(number)),
    }
}

/// The path below the root without leading and doubled slashes and without `.`; `..` is refused.
pub fn normal(raw: &[u8]) -> Result<Vec<u8>, ReadFault> {
    let mut path = Vec::with_capacity(raw.len());
    if raw.len() > MAX_PATH || raw.contains(&0) {
        return Err(ReadFault::Path(raw.to_vec()));
    }
    for element in raw.split(|b| *b == b'/') {
        match element {
            b"" | b"." => continue,
            b".." => return Err(ReadFault::Path(raw.to_vec())),
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(element);
    }
    Ok(path)
}
