// Package fanotify has the two kinds of groups that fanotify(7) offers and that
// cannot be one: a Permission group, whose events hold up the one who caused
// them until they are answered, and a Changes group, which tells afterwards
// what was changed. It knows no word of the product. A failure is the kernel's
// errno in an fs.PathError with the call and the object.
//
// What is said here about the kernel was read in Linux 6.18 (fs/notify,
// include/linux/fsnotify.h) and seen on ext4 and XFS; the tests of this package
// see it again.
package fanotify
