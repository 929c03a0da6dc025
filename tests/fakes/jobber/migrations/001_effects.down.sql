DROP TABLE stamps, faults, effects;
