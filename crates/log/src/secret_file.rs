//! Files that hold a secret, so that it stands in no configuration.

use std::fs;
use std::path::Path;

use ringback_core::secret::Secret;

/// Reads the secret in a file, without the line's end.
pub fn read(path: &Path) -> Result<Secret, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{} is empty", path.display())),
        secret => Ok(Secret::new(secret)),
    }
}
