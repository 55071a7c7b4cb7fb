//! What a program asks of the machine it is started on, from its own headers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::{DT_NULL, DT_RPATH, DT_RUNPATH, FileHeader64, PT_DYNAMIC};
use object::read::elf::{FileHeader, ProgramHeader};

/// Tags of wheels, and the youngest symbols of the C and the C++ library that programs under each may ask for, the oldest first.
///
/// Source: `pypa/auditwheel:src/auditwheel/policy/manylinux-policy.json`.
const TAGS: [(&str, [u32; 3], [u32; 3]); 4] = [
    ("manylinux_2_28", [2, 28, 0], [3, 4, 24]),
    ("manylinux_2_31", [2, 31, 0], [3, 4, 28]),
    ("manylinux_2_34", [2, 34, 0], [3, 4, 29]),
    ("manylinux_2_35", [2, 35, 0], [3, 4, 30]),
];

/// The oldest tag whose machines have everything that a program asks for.
///
/// # Errors
/// The file is no program, or asks for more than any tag has.
pub fn tag(program: &Path) -> Result<&'static str> {
    let versions = versions(program)?;
    let youngest = |prefix: &str| {
        let of_library = versions.iter().filter_map(|version| version.strip_prefix(prefix));
        of_library.filter_map(numbers).max().unwrap_or_default()
    };
    let (c, cpp) = (youngest("GLIBC_"), youngest("GLIBCXX_"));
    let fit = TAGS.iter().find(|(_, glibc, glibcxx)| c <= *glibc && cpp <= *glibcxx);
    match fit {
        Some((tag, ..)) => Ok(tag),
        None => bail!(
            "{} asks for glibc {c:?} and libstdc++ {cpp:?}, younger than any wheel may",
            program.display()
        ),
    }
}

/// A version with a place for each of three numbers.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut numbers = [0; 3];
    for (place, number) in version.split('.').enumerate() {
        *numbers.get_mut(place)? = number.parse().ok()?;
    }
    Some(numbers)
}

/// Names of the versions of symbols that a program asks other libraries for.
fn versions(program: &Path) -> Result<Vec<String>> {
    let data = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let read = || -> object::Result<Vec<String>> {
        let data = data.as_slice();
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut names = Vec::new();
        let Some((mut needed, link)) = sections.gnu_verneed(endian, data)? else { return Ok(names) };
        let strings = sections.strings(endian, data, link)?;
        while let Some((_, mut versions)) = needed.next()? {
            while let Some(version) = versions.next()? {
                names.push(String::from_utf8_lossy(version.name(endian, strings)?).into_owned());
            }
        }
        Ok(names)
    };
    read().with_context(|| format!("{} is not a 64-bit program", program.display()))
}

/// Has the loader look in the program's own path first, whatever `LD_LIBRARY_PATH` is: the newer kind of entry, `DT_RUNPATH`, comes
/// after it, and Zig writes no other.
///
/// # Errors
/// The file is no program, or cannot be written.
pub fn prefer_own_path(program: &Path) -> Result<()> {
    let mut data = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let entry =
        run_path_entry(&data).with_context(|| format!("{} is not a 64-bit program", program.display()))?;
    if let Some(entry) = entry {
        data[entry..entry + 8].copy_from_slice(&DT_RPATH.0.to_le_bytes());
        fs::write(program, data).with_context(|| format!("cannot write {}", program.display()))?;
    }
    Ok(())
}

/// Where the entry `DT_RUNPATH` lies in the file.
fn run_path_entry(data: &[u8]) -> object::Result<Option<usize>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, data)? {
        if segment.p_type(endian) != PT_DYNAMIC {
            continue;
        }
        let start = segment.p_offset(endian) as usize;
        for at in (start..start + segment.p_filesz(endian) as usize).step_by(16) {
            let tag = data.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(i64::from_le_bytes);
            match tag {
                None => break,
                Some(tag) if tag == DT_NULL.0 => break,
                Some(tag) if tag == DT_RUNPATH.0 => return Ok(Some(at)),
                Some(_) => {}
            }
        }
    }
    Ok(None)
}
