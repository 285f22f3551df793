"""One device an owner, whom a column of the table names."""

from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.natural import NaturalPartitioner


@register("partition", "column")
@dataclass(frozen=True)
class ByColumn(NaturalPartitioner):
    """Each device has the images of one client, whom a column of the data's table names (`data.client_column`)."""

    @property
    def told_by(self) -> str:
        """A column."""
        return "column"

    @property
    def hint(self) -> str:
        """Name the column."""
        return "Set data.client_column to the column that names the client (data=parquet, image_list and their like)."
