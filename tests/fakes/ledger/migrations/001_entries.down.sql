DROP TABLE entries, keys, disorder, mode;
