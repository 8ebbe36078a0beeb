//! What has to be known of an ELF file to load it (elf(5)): 64-bit, of this machine.
//!
//! Pure: takes bytes, gives numbers.  The numbers are the file's and are not believed: whatever is computed from
//! them wraps or is refused.

/// Size of a page; what the kernel maps starts at a multiple of it.
pub const PAGE: u64 = 4096;

/// Enough for the headers of any program.
pub const HEAD: usize = 4096;

/// Stops a file from claiming headers without end.
const MAX_HEADERS: usize = 64;

const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
const HEADERS: u32 = 6;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// A program or a dynamic linker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// Whether it can be loaded at any address.
    pub relocatable: bool,
    /// Address of the first instruction.
    pub entry: u64,
    /// Where the program headers are once it is loaded.
    pub headers: u64,
    /// How many.
    pub header_count: u16,
    /// What is loaded.
    pub segments: Vec<Segment>,
    /// Path of the dynamic linker.
    pub interpreter: Option<Vec<u8>>,
}

/// A part of a file that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// Where in memory.
    pub address: u64,
    /// Length in the file.
    pub file_size: u64,
    /// Length in memory; what the file does not have is zero.
    pub size: u64,
    /// What the address is a multiple of.
    pub align: u64,
    /// Readable, writable, executable, as mmap(2) has them.
    pub protection: u64,
}

impl Elf {
    /// Reads the headers; none where it is no program for this machine.
    pub fn parse(head: &[u8]) -> Option<Self> {
        if head.get(..6)? != b"\x7fELF\x02\x01" || u16_at(head, 18)? != MACHINE {
            return None;
        }
        let kind = u16_at(head, 16)?;
        let (table, size, count) = (u64_at(head, 32)?, u16_at(head, 54)?, u16_at(head, 56)?);
        if ![EXECUTABLE, SHARED].contains(&kind) || size != 56 || usize::from(count) > MAX_HEADERS {
            return None;
        }
        let mut elf = Self {
            relocatable: kind == SHARED,
            entry: u64_at(head, 24)?,
            headers: 0,
            header_count: count,
            segments: Vec::new(),
            interpreter: None,
        };
        for index in 0..usize::from(count) {
            let at = usize::try_from(table).ok()?.checked_add(index * 56)?;
            elf.take(head, head.get(at..at.checked_add(56)?)?, table)?;
        }
        (!elf.segments.is_empty()).then_some(elf)
    }

    fn take(&mut self, head: &[u8], header: &[u8], table: u64) -> Option<()> {
        let flags = u32_at(header, 4)?;
        let segment = Segment {
            offset: u64_at(header, 8)?,
            address: u64_at(header, 16)?,
            file_size: u64_at(header, 32)?,
            size: u64_at(header, 40)?,
            align: u64_at(header, 48)?,
            // The file's order is the other way round.
            protection: u64::from((flags & 4) >> 2 | (flags & 2) | (flags & 1) << 2),
        };
        match u32_at(header, 0)? {
            LOAD => {
                let holds = segment.offset..segment.offset.checked_add(segment.file_size)?;
                if self.headers == 0 && holds.contains(&table) {
                    self.headers = segment.address.wrapping_add(table - segment.offset);
                }
                segment.address.checked_add(segment.size)?;
                (segment.file_size <= segment.size).then_some(())?;
                self.segments.push(segment);
            }
            HEADERS => self.headers = segment.address,
            INTERPRETER => {
                let start = usize::try_from(segment.offset).ok()?;
                let length = usize::try_from(segment.file_size).ok()?;
                let text = head.get(start..start.checked_add(length)?)?;
                self.interpreter = Some(text.strip_suffix(b"\0")?.to_vec());
            }
            _ => {}
        }
        Some(())
    }

    /// Returns the pages that it takes in memory: first address and length.
    pub fn span(&self) -> (u64, u64) {
        let start = self.segments.iter().map(|s| down(s.address)).min();
        let end = self.segments.iter().map(|s| up(s.address + s.size)).max();
        let (start, end) = (start.unwrap_or(0), end.unwrap_or(0));
        (start, end.saturating_sub(start))
    }

    /// Returns what its address is to be a multiple of.
    pub fn align(&self) -> u64 {
        let aligns = self.segments.iter().map(|s| s.align);
        // Stops a file from asking for more than a huge page.
        aligns
            .filter(|align| align.is_power_of_two())
            .max()
            .unwrap_or(PAGE)
            .clamp(PAGE, 1 << 30)
    }
}

/// Returns the start of the page that an address is in.
pub const fn down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

/// Returns the start of the first page that is not below an address.
pub const fn up(address: u64) -> u64 {
    down(address.saturating_add(PAGE - 1))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    field(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machine_is_understood() {
        let head = std::fs::read("/proc/self/exe").expect("read");
        let elf = Elf::parse(&head[..HEAD]).expect("elf");
        assert!(elf.relocatable && elf.interpreter.is_some());
        let (start, length) = elf.span();
        assert!((start..start + length).contains(&elf.entry));
        assert!((start..start + length).contains(&elf.headers));
        assert!(elf.segments.iter().any(|s| s.protection == 5), "code");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let head = std::fs::read("/proc/self/exe").expect("read");
        for length in [0, 5, 18, 60, 100, 200] {
            assert_eq!(Elf::parse(&head[..length]), None);
        }
        let mut other = head[..HEAD].to_vec();
        other[18] = 3;
        assert_eq!(Elf::parse(&other), None, "of another machine");
        let mut huge = head[..HEAD].to_vec();
        huge[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Elf::parse(&huge), None, "headers at no place");
    }
}
