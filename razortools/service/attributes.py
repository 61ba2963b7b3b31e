"""Requests about attributes: stat, chmod, chown, utimes and truncate, symlink targets, statfs and extended attributes."""

import errno

import pyfuse3

from razortools.engine import acls, attributes, namespace, xattrs
from razortools.engine.attributes import AttributeChange
from razortools.format.inode import InodeFlag
from razortools.service.callers import is_in_group, may_keep_set_id, mode_after_chown, mode_after_truncating
from razortools.service.handlers import Handlers, handler
from razortools.units import InodeNo


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
        inode, mode = self.volume.inodes.get(ino), None
        if fields.update_uid or fields.update_gid:
            mode = mode_after_chown(inode, ctx)
        elif fields.update_size:
            mode = mode_after_truncating(inode, ctx)
        if mode is None and fields.update_mode:
            mode = attr.st_mode
        change = AttributeChange(
            mode=mode,
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
        if name in acls.NAMES:
            self._check_acls_offered()
        xattrs.check_namespace(name)
        if not self.volume.inodes.get(ino).flags & InodeFlag.HAS_XATTRS:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return xattrs.get(self.volume, ino, name)

    @handler
    def setxattr(self, ino: InodeNo, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Set a value. XATTR_CREATE and XATTR_REPLACE are judged by pyfuse3, which asks getxattr right before."""
        if name in acls.NAMES:
            self._check_acls_offered()
            keeps_set_gid = may_keep_set_id(ctx) or is_in_group(ctx, self.volume.inodes.get(ino).gid)
            acls.set(self.volume, ino, name, value, keeps_set_gid=keeps_set_gid)
        else:
            xattrs.set(self.volume, ino, name, value)

    @handler
    def listxattr(self, ino: InodeNo, ctx: pyfuse3.RequestContext) -> list[bytes]:
        """Return the names of all attributes."""
        return xattrs.names(self.volume, ino)

    @handler
    def removexattr(self, ino: InodeNo, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an attribute."""
        if name in acls.NAMES:
            self._check_acls_offered()
            acls.remove(self.volume, ino, name)
        else:
            xattrs.check_namespace(name)
            xattrs.remove(self.volume, ino, name)

    def _check_acls_offered(self) -> None:
        """Raise EOPNOTSUPP if the kernel does not enforce lists on this mount: cp -a and tar go on without them when told so."""
        if not self.enable_acl:
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
