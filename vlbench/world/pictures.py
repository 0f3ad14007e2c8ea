from dataclasses import dataclass
@dataclass(frozen=True)
class Picture:
    file: str
