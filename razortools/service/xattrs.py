"""Requests about extended attributes, access control lists among them."""

import errno

from razortools.engine import acls, xattrs
from razortools.engine.xattrs import HAS_XATTRS
from razortools.service.callers import Caller, is_in_group, may_keep_set_id, may_see_trusted
from razortools.service.handlers import Handler, Handlers, Refused
from razortools.service.wire import GETXATTR, GETXATTR_OUT, SETXATTR, Opcode
from razortools.units import InodeNo

_TRUSTED = b"trusted."


class XattrHandlers(Handlers):
    """Handlers whose node is an inode with attributes."""

    def table(self) -> dict[int, Handler]:
        """Return the handlers of this family by opcode."""
        return super().table() | {
            Opcode.GETXATTR: self.getxattr,
            Opcode.SETXATTR: self.setxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.REMOVEXATTR: self.removexattr,
        }

    def getxattr(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Return a value. The kernel asks for security.capability at a first write: the inode knows whether there are any."""
        (size,) = GETXATTR.unpack_from(body)
        name = bytes(body[GETXATTR.size : -1])
        xattrs.check_namespace(name)
        if not self.volume.inodes.get(ino).flags & HAS_XATTRS:
            raise Refused(errno.ENODATA)
        return _fitting(xattrs.get(self.volume, ino, name), size)

    def setxattr(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Set a value."""
        size, flags = SETXATTR.unpack_from(body)
        name, _, rest = bytes(body[SETXATTR.size :]).partition(b"\0")
        value = rest[:size]
        if name in acls.NAMES:
            self._check_flags(ino, name, flags)
            keeps_set_gid = may_keep_set_id(caller) or is_in_group(caller, self.volume.inodes.get(ino).gid)
            acls.set(self.volume, ino, name, value, keeps_set_gid=keeps_set_gid)
        else:
            xattrs.set(self.volume, ino, name, value, flags)
        return b""

    def listxattr(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Return the names of all attributes that the caller may know of."""
        (size,) = GETXATTR.unpack_from(body)
        names = xattrs.names(self.volume, ino)
        if any(name.startswith(_TRUSTED) for name in names) and not may_see_trusted(caller):
            names = [name for name in names if not name.startswith(_TRUSTED)]
        return _fitting(b"".join(name + b"\0" for name in names), size)

    def removexattr(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Remove an attribute."""
        name = bytes(body[:-1])
        if name in acls.NAMES:
            acls.remove(self.volume, ino, name)
        else:
            xattrs.check_namespace(name)
            xattrs.remove(self.volume, ino, name)
        return b""

    def _check_flags(self, ino: InodeNo, name: bytes, flags: int) -> None:
        """Raise what XATTR_CREATE and XATTR_REPLACE ask for."""
        if flags & (xattrs.XATTR_CREATE | xattrs.XATTR_REPLACE):
            is_there = xattrs.find(self.volume, ino, name) is not None
            if is_there and flags & xattrs.XATTR_CREATE:
                raise Refused(errno.EEXIST)
            if not is_there and flags & xattrs.XATTR_REPLACE:
                raise Refused(errno.ENODATA)


def _fitting(value: bytes, size: int) -> bytes:
    """Return the reply for a caller with room for *size* bytes; 0: it asks how many there are. Raises ERANGE."""
    if size == 0:
        return GETXATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise Refused(errno.ERANGE)
    return value
