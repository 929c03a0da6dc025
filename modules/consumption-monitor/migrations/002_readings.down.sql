DROP TABLE readings;
DROP TABLE metrics;
