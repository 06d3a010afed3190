//! File container, versions, fingerprints and size limits, and the codecs of every public object
