//! Archives as torch.save lays them out, or not quite.

/// One archive entry, with what may be wrong about it.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub data: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    /// Added to the size that the directory gives.
    pub longer: u32,
    /// The name in the entry's own header, where it differs.
    pub local_name: Option<String>,
}

/// A sound entry.
pub fn entry(name: &str, data: &[u8]) -> Entry {
    Entry { name: name.into(), data: data.to_vec(), flags: 0, method: 0, longer: 0, local_name: None }
}

/// An archive of these entries.
pub fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let Entry { name, data, flags, method, longer, local_name } = entry;
        let (at, size) = (file.len() as u32, data.len() as u32);
        let common = |name: &str, size: u32| {
            let mut fields = [0u16, *flags, *method, 0, 0, 0, 0].map(u16::to_le_bytes).concat();
            fields.extend([size, size].map(u32::to_le_bytes).concat());
            fields.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
            fields
        };
        let local_name = local_name.as_ref().unwrap_or(name);
        file.extend(b"PK\x03\x04");
        file.extend(common(local_name, size));
        file.extend(local_name.as_bytes());
        file.extend(data);
        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(common(name, size + longer));
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, n) = (file.len() as u32, entries.len() as u16);
    let size = directory.len() as u32;
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([n, n].map(u16::to_le_bytes).concat());
    file.extend([size, at].map(u32::to_le_bytes).concat());
    file.extend([0; 2]);
    file
}

/// The entries of a file with this pickle and one storage of sixteen bytes.
pub fn entries(pickle: &[u8]) -> Vec<Entry> {
    vec![entry("w/data.pkl", pickle), entry("w/version", b"3\n"), entry("w/data/0", &[7; 16])]
}
