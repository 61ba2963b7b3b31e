"""Requests about attributes: stat, chmod, chown, utimes and truncate, symlink targets, statfs and extended attributes."""

import errno

import pyfuse3

from razortools.engine import attributes, namespace, xattrs
from razortools.engine.attributes import AttributeChange
from razortools.format.inode import InodeFlag
from razortools.service.handlers import Handlers, handler
from razortools.units import InodeNo

# Kept as plain values they would look as if they were enforced; cp -a and tar go on without them when told that there are none.
_ACL_PREFIX = b"system.posix_acl_"


class AttributeHandlers(Handlers):
    """Handlers whose first argument is an inode."""

    @handler
    def getattr(self, ino: InodeNo, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """stat(2)."""
        return self.entry(ino)

    @handler
    def setattr(
        self,
        ino: InodeNo,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        handle: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """chmod(2), chown(2), truncate(2), utimensat(2)."""
        change = AttributeChange(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            ctime_ns=attr.st_ctime_ns if fields.update_ctime else None,
        )
        return self.attributes_of(ino, attributes.setattr(self.volume, ino, change))

    @handler
    def readlink(self, ino: InodeNo, ctx: pyfuse3.RequestContext) -> bytes:
        """Return the target of a symbolic link."""
        return namespace.readlink(self.volume, ino)

    # Extended attributes

    @handler
    def getxattr(self, ino: InodeNo, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """Return a value. The kernel asks for security.capability before every write: the inode knows whether there are any."""
        if name.startswith(_ACL_PREFIX):
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        if not self.volume.inodes.get(ino).flags & InodeFlag.HAS_XATTRS:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return xattrs.get(self.volume, ino, name)

    @handler
    def setxattr(self, ino: InodeNo, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Set a value. XATTR_CREATE and XATTR_REPLACE are judged by pyfuse3, which asks getxattr right before."""
        if name.startswith(_ACL_PREFIX):
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        xattrs.set(self.volume, ino, name, value)

    @handler
    def listxattr(self, ino: InodeNo, ctx: pyfuse3.RequestContext) -> list[bytes]:
        """Return the names of all attributes."""
        return xattrs.names(self.volume, ino)

    @handler
    def removexattr(self, ino: InodeNo, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an attribute."""
        if name.startswith(_ACL_PREFIX):
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        xattrs.remove(self.volume, ino, name)
