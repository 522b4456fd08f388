//! How much of a disk that tenants share is not for a tenant: what the server needs, and what is left for others.

use palisade_protocol::limits::{
    STORAGE_RESERVED_BYTES, STORAGE_RESERVED_FILES, STORAGE_SHARED_BYTES, STORAGE_SHARED_FILES,
};
use palisade_workspace::{Amount, Volume};

/// What is kept of a shared disk for the server itself, so that a full one does not stop the database too.
pub(crate) fn reserved(volume: &Volume) -> Amount {
    let part = Amount { bytes: volume.total.bytes / 20, files: volume.total.files / 10 };
    part.min(Amount { bytes: STORAGE_RESERVED_BYTES, files: STORAGE_RESERVED_FILES })
}

/// What is kept of it from a tenant that takes so much. Whoever takes more than an equal share leaves the disk's end to those
/// who take less: so nobody finds a disk that one tenant alone has filled.
pub(crate) fn kept_from(used: Amount, volume: &Volume, tenants: u64) -> Amount {
    let reserved = reserved(volume);
    let end = Amount {
        bytes: (volume.total.bytes / 10).min(STORAGE_SHARED_BYTES),
        files: (volume.total.files / 5).min(STORAGE_SHARED_FILES),
    };
    let is_over = |used: u64, total: u64| tenants > 1 && used > total / tenants;
    Amount {
        bytes: if is_over(used.bytes, volume.total.bytes) {
            end.bytes.max(reserved.bytes)
        } else {
            reserved.bytes
        },
        files: if is_over(used.files, volume.total.files) {
            end.files.max(reserved.files)
        } else {
            reserved.files
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn volume(total: Amount) -> Volume {
        Volume { total, free: total }
    }

    #[test]
    fn the_end_of_a_disk_is_for_those_who_take_less() {
        let disk = volume(Amount { bytes: 400 * GIB, files: 4_000_000 });
        let kept = |bytes, files, tenants| kept_from(Amount { bytes, files }, &disk, tenants);
        let server = Amount { bytes: STORAGE_RESERVED_BYTES, files: STORAGE_RESERVED_FILES };
        assert_eq!(kept(390 * GIB, 3_900_000, 1), server, "nobody else is there");
        assert_eq!(kept(100 * GIB, 1_000_000, 4), server, "an equal share");
        assert_eq!(kept(100 * GIB + 1, 0, 4), Amount { bytes: STORAGE_SHARED_BYTES, ..server });
        assert_eq!(kept(0, 1_000_001, 4), Amount { files: STORAGE_SHARED_FILES, ..server });
        // A small disk, and one that does not count files.
        let small = volume(Amount { bytes: 1000, files: u64::MAX });
        assert_eq!(reserved(&small).bytes, 50);
        assert_eq!(kept_from(Amount { bytes: 501, files: 7 }, &small, 2).bytes, 100);
    }
}
