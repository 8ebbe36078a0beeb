//! What has to be known of an ELF file to load it (elf(5)): of this machine, of 64 bits or of 32 where its kernels know them.
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

/// Machines by their numbers: of programs of 64 bits, and of those of 32 whose calls are known.
#[cfg(target_arch = "x86_64")]
const MACHINE: (u16, Option<u16>) = (62, Some(3));
#[cfg(target_arch = "aarch64")]
const MACHINE: (u16, Option<u16>) = (183, None);

/// Where what is, in headers of a class: numbers that are as wide as addresses are `width` bytes.
struct Class {
    width: usize,
    entry: usize,
    table: usize,
    /// Size of a program header; how many there are follows.
    size: usize,
    count: usize,
    // In a program header.
    header: u16,
    flags: usize,
    offset: usize,
    address: usize,
    file_size: usize,
    memory_size: usize,
    align: usize,
}

const WIDE: Class = Class {
    width: 8,
    entry: 24,
    table: 32,
    size: 54,
    count: 56,
    header: 56,
    flags: 4,
    offset: 8,
    address: 16,
    file_size: 32,
    memory_size: 40,
    align: 48,
};

const NARROW: Class = Class {
    width: 4,
    entry: 24,
    table: 28,
    size: 42,
    count: 44,
    header: 32,
    flags: 24,
    offset: 4,
    address: 8,
    file_size: 16,
    memory_size: 20,
    align: 28,
};

/// A program or a dynamic linker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// Whether it is a program of 32 bits.
    pub narrow: bool,
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
        let machine = u16_at(head, 18)?;
        let (class, narrow) = match head.get(..6)? {
            b"\x7fELF\x02\x01" if machine == MACHINE.0 => (&WIDE, false),
            b"\x7fELF\x01\x01" if Some(machine) == MACHINE.1 => (&NARROW, true),
            _ => return None,
        };
        let kind = u16_at(head, 16)?;
        let table = class.number(head, class.table)?;
        let (size, count) = (u16_at(head, class.size)?, u16_at(head, class.count)?);
        let is_program = [EXECUTABLE, SHARED].contains(&kind);
        if !is_program || size != class.header || usize::from(count) > MAX_HEADERS {
            return None;
        }
        let mut elf = Self {
            narrow,
            relocatable: kind == SHARED,
            entry: class.number(head, class.entry)?,
            headers: 0,
            header_count: count,
            segments: Vec::new(),
            interpreter: None,
        };
        for index in 0..usize::from(count) {
            let at = index * usize::from(size);
            let at = usize::try_from(table).ok()?.checked_add(at)?;
            let header = head.get(at..at.checked_add(size.into())?)?;
            elf.take(head, header, table, class)?;
        }
        (!elf.segments.is_empty()).then_some(elf)
    }

    fn take(&mut self, head: &[u8], header: &[u8], table: u64, class: &Class) -> Option<()> {
        let flags = u32_at(header, class.flags)?;
        let segment = Segment {
            offset: class.number(header, class.offset)?,
            address: class.number(header, class.address)?,
            file_size: class.number(header, class.file_size)?,
            size: class.number(header, class.memory_size)?,
            align: class.number(header, class.align)?,
            // The file's order is the other way round.
            protection: u64::from((flags & 4) >> 2 | (flags & 2) | (flags & 1) << 2),
        };
        match u32_at(header, 0)? {
            LOAD => {
                let holds = segment.offset..segment.offset.checked_add(segment.file_size)?;
                if self.headers == 0 && holds.contains(&table) {
                    self.headers = segment.address.wrapping_add(table - segment.offset);
                }
                let end = segment.address.checked_add(segment.size)?;
                (!self.narrow || end <= u64::from(u32::MAX)).then_some(())?;
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

impl Class {
    /// Reads a number that is as wide as an address.
    fn number(&self, bytes: &[u8], at: usize) -> Option<u64> {
        if self.width == 8 {
            field(bytes, at).map(u64::from_le_bytes)
        } else {
            u32_at(bytes, at).map(u64::from)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machine_is_understood() {
        let head = std::fs::read("/proc/self/exe").expect("read");
        let elf = Elf::parse(&head[..HEAD]).expect("elf");
        assert!(!elf.narrow && elf.relocatable && elf.interpreter.is_some());
        let (start, length) = elf.span();
        assert!((start..start + length).contains(&elf.entry));
        assert!((start..start + length).contains(&elf.headers));
        assert!(elf.segments.iter().any(|s| s.protection == 5), "code");
    }

    /// Header of a program of 32 bits with one segment.
    #[cfg(target_arch = "x86_64")]
    fn narrow_head() -> Vec<u8> {
        let mut head = vec![0; 84];
        head[..6].copy_from_slice(b"\x7fELF\x01\x01");
        for (at, value) in [(16, EXECUTABLE), (18, 3), (42, 32), (44, 1)] {
            head[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        let numbers = [(24, 0x0804_8054), (28, 52), (52, LOAD), (60, 0x0804_8000)];
        let sizes = [(68, 84), (72, 0x2000), (76, 5), (80, 4096)];
        for (at, value) in numbers.into_iter().chain(sizes) {
            head[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        head
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_program_of_32_bits_is_understood() {
        let elf = Elf::parse(&narrow_head()).expect("elf");
        assert!(elf.narrow && !elf.relocatable);
        assert_eq!((elf.entry, elf.headers), (0x0804_8054, 0x0804_8034));
        assert_eq!(elf.span(), (0x0804_8000, 0x2000));
        assert_eq!((elf.segments[0].protection, elf.align()), (5, 4096));
        for length in 0..84 {
            assert_eq!(Elf::parse(&narrow_head()[..length]), None);
        }
        let mut x32 = narrow_head();
        x32[18] = 62;
        assert_eq!(Elf::parse(&x32), None, "a program of x32");
        let mut beyond = narrow_head();
        beyond[72..76].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Elf::parse(&beyond), None, "an end above all addresses");
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
