"""One device a folder."""

from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.natural import NaturalPartitioner


@register("partition", "folders")
@dataclass(frozen=True)
class ByFolder(NaturalPartitioner):
    """Each device has the images of one folder: `root/train/<device>/<class>/*.jpg` with `data.device_folders=true`."""

    @property
    def told_by(self) -> str:
        """Folders."""
        return "folders"

    @property
    def hint(self) -> str:
        """Name the layout."""
        return "Set data=image_folder and data.device_folders=true, with a folder a device, and a folder a class in it."
