"""All decoders that are fuzzed, by name."""

from types import MappingProxyType

import targets_client
import targets_files
import targets_venue

TARGETS = MappingProxyType(
    {
        target.name: target
        for module in (targets_client, targets_venue, targets_files)
        for target in module.TARGETS
    }
)
