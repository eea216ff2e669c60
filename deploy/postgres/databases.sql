-- Without the extension Bot4 uses plain tables, so its absence is no error.
SELECT 'CREATE EXTENSION IF NOT EXISTS timescaledb'
 WHERE EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') \gexec

SELECT format('CREATE DATABASE %I', :'dagster_db')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'dagster_db') \gexec
