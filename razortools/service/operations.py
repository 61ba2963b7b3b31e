"""All request handlers together."""

from razortools.service.attributes import AttributeHandlers
from razortools.service.data import DataHandlers
from razortools.service.forgetting import ForgetHandlers
from razortools.service.names import NameHandlers
from razortools.service.options import MountOptions
from razortools.service.streams import StreamHandlers
from razortools.service.xattrs import XattrHandlers


class Operations(NameHandlers, StreamHandlers, AttributeHandlers, XattrHandlers, DataHandlers, ForgetHandlers):
    """The filesystem that the pump serves. What no family has is libfuse's to answer."""

    def adopt(self, options: MountOptions) -> None:
        """Go by *options* from now on."""
        self.options = options
