//! `-f FILE|DIR|-`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::resource::Source;

/// The most bytes of all files together; the socket takes no more.
const BYTES_MAX: u64 = 64 << 20;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// A folder without documents.
    #[error("{} holds no .yaml, .yml or .json file", .0.display())]
    Empty(PathBuf),
    /// More than fits.
    #[error("the files hold more than 64 MiB together; apply them in parts")]
    TooLarge,
}

/// The files behind `paths`: `-` is the standard input, a folder its .yaml, .yml and .json files by name.
pub fn read_files(paths: &[PathBuf]) -> Result<Vec<Source>, FileError> {
    let mut left = BYTES_MAX;
    let mut sources = Vec::new();
    for path in paths {
        for file in expand(path)? {
            let (name, reader): (_, Box<dyn Read>) = if is_standard_input(&file) {
                ("standard input".to_owned(), Box::new(io::stdin()))
            } else {
                let opened = std::fs::File::open(&file).map_err(|error| unreadable(&file, error))?;
                (file.display().to_string(), Box::new(opened))
            };
            let mut text = String::new();
            let read = reader
                .take(left + 1)
                .read_to_string(&mut text)
                .map_err(|error| unreadable(&file, error))?;
            left = left.checked_sub(read as u64).ok_or(FileError::TooLarge)?;
            sources.push(Source::file(name, text));
        }
    }
    Ok(sources)
}

fn expand(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    if is_standard_input(path) || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(|error| unreadable(path, error))? {
        let file = entry.map_err(|error| unreadable(path, error))?.path();
        let is_document = file
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|&one| extension == one));
        if is_document && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        Err(FileError::Empty(path.to_owned()))
    } else {
        Ok(files)
    }
}

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn unreadable(path: &Path, error: io::Error) -> FileError {
    FileError::Unreadable {
        path: path.to_owned(),
        error,
    }
}
