"""What the acceptance tests share: a mount of the test's own, as the tests of the mount have it."""

from tests.mount.conftest import fuse, mounted, unmounted

__all__ = ["fuse", "mounted", "unmounted"]
