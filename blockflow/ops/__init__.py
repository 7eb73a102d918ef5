"""Operations on whole arrays, built on runs and arrays."""
