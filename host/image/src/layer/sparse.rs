//! Maps of sparse files in tars: old GNU headers, and GNU's pax formats 0.0, 0.1 and 1.0 (GNU tar manual,
//! "Sparse Formats").  Only reading; layers are written with their holes as zeros (see `docs/decisions`).

use super::pax;

/// Most extents of one file: stops a map that takes all memory.
const MAX_EXTENTS: usize = 1 << 20;

/// Offset and length of every piece of data.
pub type Extents = Vec<(u64, u64)>;

/// Checks a map against the length of the file and of the data stored for it, and leaves out empty pieces.
pub fn check(extents: Extents, size: u64, stored: u64) -> Result<Extents, &'static str> {
    let (mut end, mut sum) = (0, 0u64);
    for &(offset, length) in &extents {
        if offset < end {
            return Err("the pieces of a sparse file overlap or are out of order");
        }
        end = offset
            .checked_add(length)
            .ok_or("a piece of a sparse file is too long")?;
        if end > size {
            return Err("a piece of a sparse file lies behind its end");
        }
        sum += length;
    }
    if sum != stored {
        return Err("the pieces of a sparse file are not as long as its data");
    }
    Ok(extents
        .into_iter()
        .filter(|(_, length)| *length > 0)
        .collect())
}

/// Adds the pairs of an old GNU header or extension block; `false` where an unused one shows that it was the last.
pub fn old_gnu(pairs: &[u8], extents: &mut Extents) -> Result<bool, &'static str> {
    for pair in pairs.chunks_exact(24) {
        if pair[0] == 0 {
            return Ok(false);
        }
        let number = |field| super::fields::number(field).and_then(|n| u64::try_from(n).ok());
        let (offset, length) = number(&pair[..12])
            .zip(number(&pair[12..]))
            .ok_or("a piece of a sparse file has a bad number")?;
        push(extents, offset, length)?;
    }
    Ok(true)
}

fn push(extents: &mut Extents, offset: u64, length: u64) -> Result<(), &'static str> {
    if extents.len() == MAX_EXTENTS {
        return Err("a sparse file has too many pieces");
    }
    extents.push((offset, length));
    Ok(())
}

/// Collects the sparse records of a pax header.
#[derive(Debug, Default, Clone)]
pub struct PaxSparse {
    /// Length of the file.
    pub size: Option<u64>,
    /// Its real name.
    pub name: Option<Vec<u8>>,
    numbers: Vec<u64>,
    listed: bool,
    version: Option<(u64, u64)>,
}

/// Where the map of a file is.
pub enum Map {
    /// The file is not sparse.
    None,
    /// It was in the header.
    Known(Extents),
    /// It is in front of the data.
    InData,
}

impl PaxSparse {
    /// Takes a record whose keyword is `GNU.sparse.` and `key`.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "a record of a sparse file has a bad number";
        let number = || pax::decimal(value).ok_or(BAD);
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number()?),
            b"major" => self.version.get_or_insert_default().0 = number()?,
            b"minor" => self.version.get_or_insert_default().1 = number()?,
            b"offset" | b"numbytes" => {
                if (key == b"offset") != self.numbers.len().is_multiple_of(2) {
                    return Err("the records of a sparse file are out of order");
                }
                self.number(number()?)?;
            }
            b"map" => {
                self.numbers.clear();
                self.listed = true;
                for text in value.split(|b| *b == b',').filter(|_| !value.is_empty()) {
                    self.number(pax::decimal(text).ok_or(BAD)?)?;
                }
            }
            b"numblocks" => self.listed = true,
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self, number: u64) -> Result<(), &'static str> {
        if self.numbers.len() == 2 * MAX_EXTENTS {
            return Err("a sparse file has too many pieces");
        }
        self.numbers.push(number);
        Ok(())
    }

    /// Says where the map is.
    pub fn map(&self) -> Result<Map, &'static str> {
        match self.version {
            Some((1, 0)) => Ok(Map::InData),
            Some((0, 0 | 1)) | None if self.listed || !self.numbers.is_empty() => {
                pairs(&self.numbers).map(Map::Known)
            }
            Some((0, 0 | 1)) | None => Ok(Map::None),
            Some(_) => Err("a sparse file has a format that is not known"),
        }
    }
}

fn pairs(numbers: &[u64]) -> Result<Extents, &'static str> {
    if !numbers.len().is_multiple_of(2) {
        return Err("the map of a sparse file ends in the middle");
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect())
}

/// Reads the map of format 1.0 from the front of the data: a decimal number a line, the first one says how many
/// pairs follow, filled up to whole blocks.  `next` gives the next block.
pub fn in_data<E: From<&'static str>>(
    mut next: impl FnMut() -> Result<[u8; 512], E>,
) -> Result<Extents, E> {
    let (mut numbers, mut wanted, mut digits) = (Vec::new(), None, Vec::new());
    loop {
        for byte in next()? {
            if byte != b'\n' {
                digits.push(byte);
                if digits.len() > 20 {
                    return Err("the map of a sparse file has a bad number".into());
                }
                continue;
            }
            let number =
                pax::decimal(&digits).ok_or("the map of a sparse file has a bad number")?;
            digits.clear();
            match wanted {
                None if number > MAX_EXTENTS as u64 => {
                    return Err("a sparse file has too many pieces".into());
                }
                None => wanted = Some(2 * number as usize),
                Some(_) => numbers.push(number),
            }
            if wanted == Some(numbers.len()) {
                return Ok(pairs(&numbers)?);
            }
        }
    }
}
