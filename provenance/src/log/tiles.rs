//! Names and contents of tiles (C2SP tlog-tiles).

/// Entries of a bundle, hashes of a tile.
pub const TILE: u64 = 256;
/// Levels of the tree in one tile.
pub const TILE_HEIGHT: u32 = 8;

/// `tile/<level>/<index>`, where an index is written in groups of three digits: 1234067 is `x001/x234/067`.
pub fn hash_path(level: u32, index: u64) -> String {
    format!("tile/{level}/{}", index_path(index))
}

/// `tile/entries/<index>`.
pub fn bundle_path(index: u64) -> String {
    format!("tile/entries/{}", index_path(index))
}

/// What a path below `tile/` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileName {
    /// The level of hashes, `None` for entries.
    pub level: Option<u32>,
    /// The tile's number.
    pub index: u64,
    /// How many hashes or entries of it: 1 to 256.
    pub width: u64,
}

impl TileName {
    /// Reads `<level>/<index>[.p/<width>]`.
    pub fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.split_once('/')?;
        let level = match kind {
            "entries" => None,
            level => Some(
                level
                    .parse()
                    .ok()
                    .filter(|level: &u32| *level < 8 && level.to_string() == kind)?,
            ),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok().filter(|width| (1..TILE).contains(width))?),
            None => (rest, TILE),
        };
        let digits: String = index.split('/').map(|group| group.trim_start_matches('x')).collect();
        let number = digits.parse().ok()?;
        (index_path(number) == index).then_some(Self {
            level,
            index: number,
            width,
        })
    }
}

/// Takes a bundle apart; stops where it is cut off.
pub fn parse_bundle(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some(entry)
    })
}

fn index_path(index: u64) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(hash_path(0, 1_234_067), "tile/0/x001/x234/067");
        assert_eq!(bundle_path(5), "tile/entries/005");
        let name = TileName {
            level: Some(2),
            index: 1_234_067,
            width: 256,
        };
        assert_eq!(TileName::parse("2/x001/x234/067"), Some(name));
        assert_eq!(
            TileName::parse("entries/000.p/7"),
            Some(TileName {
                level: None,
                index: 0,
                width: 7
            })
        );
        for bad in [
            "0/0",
            "0/x000/001",
            "9/000",
            "00/000",
            "0/000.p/256",
            "0/000.p/0",
            "0/../001",
            "entries",
        ] {
            assert_eq!(TileName::parse(bad), None, "{bad}");
        }
    }
}
