package snapshot

// Own is the name of the directory in the root of a volume in which providers
// keep what they make there. It is never part of a backup.
const Own = ".stillpoint"
