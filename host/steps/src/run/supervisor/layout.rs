//! The structures that stat(2) and statx(2) fill, as each kind of program has them in its memory.
//!
//! What is in them is [`super::stat`]'s affair.

use rustix::fs::{self, Statx, StatxFlags};
use rustix::io::Errno;
use stepwell_sys::meta::InodeId;

use crate::run::narrow::Form;

/// Lays a `struct stat` out as the caller has it.
///
/// # Errors
/// `EOVERFLOW`: it does not fit.
pub fn encode_stat(stat: &Statx, form: Form) -> Result<Vec<u8>, Errno> {
    match form {
        Form::Stat => encode_narrow_stat(stat),
        Form::Stat64 => Ok(encode_stat64(stat)),
        _ => Ok(encode_native_stat(stat)),
    }
}

/// `struct stat` of 32-bit programs of x86 (`struct compat_stat`, arch/x86/include/asm/compat.h).
fn encode_narrow_stat(stat: &Statx) -> Result<Vec<u8>, Errno> {
    fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, Errno> {
        T::try_from(value).map_err(|_| Errno::OVERFLOW)
    }
    let form = Form::ShortIds(&[]);
    // Without O_LARGEFILE the largest length is that of a signed number.
    let size: i32 = narrow(stat.stx_size)?;
    let mut out = Bytes(Vec::with_capacity(64));
    out.u32(narrow(fs::makedev(stat.stx_dev_major, stat.stx_dev_minor))?)
        .u32(narrow(stat.stx_ino)?)
        .u16(stat.stx_mode)
        .u16(narrow(stat.stx_nlink.into())?)
        .u16(form.id(stat.stx_uid) as u16)
        .u16(form.id(stat.stx_gid) as u16)
        .u32(narrow(fs::makedev(
            stat.stx_rdev_major,
            stat.stx_rdev_minor,
        ))?)
        .u32(size as u32)
        .u32(stat.stx_blksize)
        .u32(narrow(stat.stx_blocks)?);
    out.times(stat);
    out.0.resize(64, 0);
    Ok(out.0)
}

/// `struct stat64` of 32-bit programs of x86, which has no gaps (arch/x86/include/uapi/asm/stat.h).
fn encode_stat64(stat: &Statx) -> Vec<u8> {
    let mut out = Bytes(Vec::with_capacity(96));
    out.u64(fs::makedev(stat.stx_dev_major, stat.stx_dev_minor))
        .u32(0)
        .u32(stat.stx_ino as u32)
        .u32(stat.stx_mode.into())
        .u32(stat.stx_nlink)
        .u32(stat.stx_uid)
        .u32(stat.stx_gid)
        .u64(fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor))
        .u32(0)
        .u64(stat.stx_size)
        .u32(stat.stx_blksize)
        .u64(stat.stx_blocks);
    out.times(stat).u64(stat.stx_ino);
    out.0
}

/// `struct stat` of this architecture (stat(2), arch/*/include/uapi/asm/stat.h).
fn encode_native_stat(stat: &Statx) -> Vec<u8> {
    let device = fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    let number = fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
    let mode = u32::from(stat.stx_mode);
    let mut out = Bytes(Vec::with_capacity(144));
    out.u64(device).u64(stat.stx_ino);
    if cfg!(target_arch = "x86_64") {
        out.u64(stat.stx_nlink.into())
            .u32(mode)
            .u32(stat.stx_uid)
            .u32(stat.stx_gid)
            .u32(0);
        out.u64(number)
            .u64(stat.stx_size)
            .u64(stat.stx_blksize.into());
    } else {
        out.u32(mode)
            .u32(stat.stx_nlink)
            .u32(stat.stx_uid)
            .u32(stat.stx_gid);
        out.u64(number)
            .u64(0)
            .u64(stat.stx_size)
            .u32(stat.stx_blksize)
            .u32(0);
    }
    out.u64(stat.stx_blocks);
    for time in [&stat.stx_atime, &stat.stx_mtime, &stat.stx_ctime] {
        out.u64(time.tv_sec as u64).u64(time.tv_nsec.into());
    }
    let size = if cfg!(target_arch = "x86_64") {
        144
    } else {
        128
    };
    out.0.resize(size, 0);
    out.0
}

/// Lays a `struct statx` out (statx(2), include/uapi/linux/stat.h); what is not known is zero and not in the mask.
pub fn encode_statx(stat: &Statx) -> Vec<u8> {
    let known = InodeId::STATX | StatxFlags::MNT_ID;
    let mut out = Bytes(Vec::with_capacity(256));
    out.u32(stat.stx_mask & known.bits())
        .u32(stat.stx_blksize)
        .u64(stat.stx_attributes.bits());
    out.u32(stat.stx_nlink)
        .u32(stat.stx_uid)
        .u32(stat.stx_gid)
        .u32(stat.stx_mode.into());
    out.u64(stat.stx_ino)
        .u64(stat.stx_size)
        .u64(stat.stx_blocks)
        .u64(stat.stx_attributes_mask.bits());
    for time in [
        &stat.stx_atime,
        &stat.stx_btime,
        &stat.stx_ctime,
        &stat.stx_mtime,
    ] {
        out.u64(time.tv_sec as u64).u32(time.tv_nsec).u32(0);
    }
    out.u32(stat.stx_rdev_major)
        .u32(stat.stx_rdev_minor)
        .u32(stat.stx_dev_major)
        .u32(stat.stx_dev_minor);
    out.u64(stat.stx_mnt_id);
    out.0.resize(256, 0);
    out.0
}

/// Appends numbers as memory holds them.
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// The three times with 32 bits for each number.
    fn times(&mut self, stat: &Statx) -> &mut Self {
        for time in [&stat.stx_atime, &stat.stx_mtime, &stat.stx_ctime] {
            self.u32(time.tv_sec as u32).u32(time.tv_nsec);
        }
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::stat::full_stat;
    use super::*;

    #[test]
    fn the_layouts_are_the_c_librarys() {
        let file = std::fs::File::open("/etc/passwd").expect("open");
        let stat = full_stat(&file).expect("statx");
        let bytes = encode_native_stat(&stat);
        assert_eq!(bytes.len(), size_of::<libc::stat>());
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        assert_eq!(word(std::mem::offset_of!(libc::stat, st_ino)), stat.stx_ino);
        assert_eq!(
            word(std::mem::offset_of!(libc::stat, st_size)),
            stat.stx_size
        );
        assert_eq!(
            word(std::mem::offset_of!(libc::stat, st_mtime)),
            stat.stx_mtime.tv_sec as u64
        );
        let bytes = encode_statx(&stat);
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        assert_eq!(bytes.len(), size_of::<libc::statx>());
        assert_eq!(
            word(std::mem::offset_of!(libc::statx, stx_size)),
            stat.stx_size
        );
        assert_eq!(
            word(std::mem::offset_of!(libc::statx, stx_mtime)),
            stat.stx_mtime.tv_sec as u64
        );
        assert_eq!(
            word(std::mem::offset_of!(libc::statx, stx_mnt_id)),
            stat.stx_mnt_id
        );
    }
}
